"""The chunked loss against the one that transformers computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ft_core.recipe import TrainRecipe
from ft_core.render import IGNORED, Rendered
from ft_core.train import loss
from ft_core.train.model import add_adapter, load_base

CPU = torch.device("cpu")


@pytest.fixture
def examples() -> list[Rendered]:
    draw = torch.Generator().manual_seed(1)

    def example(length: int, learnt_from: int) -> Rendered:
        ids = torch.randint(20, 40_000, (length,), generator=draw).tolist()
        return Rendered(tuple(ids), tuple([IGNORED] * learnt_from + ids[learnt_from:]))

    return [example(30, 10), example(17, 16), example(41, 0), example(25, 25)]


@pytest.fixture
def model(tiny_model: Path):
    tuned = add_adapter(load_base(tiny_model, "fp32", CPU), TrainRecipe(rank=4))
    torch.manual_seed(3)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:  # they begin as zeros, and so would hide an error in the gradient of A
            torch.nn.init.normal_(parameter, std=0.05)
    return tuned


def _plain(model, example: Rendered) -> torch.Tensor:
    """Nats as transformers has them: the mean over the learnt tokens, times their number."""
    ids, labels = torch.tensor([example.ids]), torch.tensor([example.labels])
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss * example.learnt


def test_nats_and_gradients_equal_the_plain_loss(model, examples, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK", 7)
    monkeypatch.setattr(loss, "BLOCK", 3)
    learning = [e for e in examples if e.learnt]
    batch = loss.collate([{"input_ids": e.ids, "labels": e.labels} for e in examples], pad_id=2)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}

    nats = loss.learnt_nats(model, batch)
    (nats / 3).backward()
    ours = {n: p.grad.clone() for n, p in trained.items()}
    model.zero_grad()
    plain = sum(_plain(model, e) for e in learning)
    (plain / 3).backward()

    assert nats.item() == pytest.approx(plain.item(), rel=1e-5)
    for name, parameter in trained.items():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_the_head_has_few_numbers_of_rows(model, examples):
    seen = []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    for some in (examples[:1], examples[1:3], examples):
        learnt = loss.learnt_nats(model, loss.collate([{"input_ids": e.ids, "labels": e.labels} for e in some], 2))
        learnt.backward()
    assert seen == [32, 64, 64] and loss.LEARNT == 32  # of 20, 41 and 61 learnt tokens


@pytest.mark.parametrize("tied", [True, False])
def test_a_trained_head_has_the_gradients_of_the_plain_loss(tiny_model, examples, monkeypatch, tied):
    """Full training: the head learns too, be it the embedding's twin or a matrix of its own."""
    monkeypatch.setattr(loss, "CHUNK", 7)
    whole = load_base(tiny_model, "fp32", CPU).requires_grad_(True)
    if not tied:
        whole.lm_head.weight = torch.nn.Parameter(whole.lm_head.weight.detach().clone() * 1.1)
    batch = loss.collate([{"input_ids": e.ids, "labels": e.labels} for e in examples], pad_id=2)

    nats = loss.learnt_nats(whole, batch)
    (nats / 3).backward()
    ours = {n: p.grad.clone() for n, p in whole.named_parameters()}
    assert ("lm_head.weight" in ours) is not tied
    whole.zero_grad()
    plain = sum(_plain(whole, e) for e in examples if e.learnt)
    (plain / 3).backward()

    assert nats.item() == pytest.approx(plain.item(), rel=1e-5)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_a_trained_head_keeps_no_logits_for_the_way_back(tiny_model, examples):
    whole = load_base(tiny_model, "fp32", CPU).requires_grad_(True)
    batch = loss.collate([{"input_ids": examples[2].ids, "labels": examples[2].labels}], pad_id=2)
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        nats = loss.learnt_nats(whole, batch)
        nats.backward()
    assert nats > 0 and not any(shape[-1:] == (whole.config.vocab_size,) for shape in kept)


def test_each_tokens_nats_may_be_weighed(model, examples):
    """What preferences need: rows that pull and rows that push in one batch."""
    batch = loss.collate([{"input_ids": e.ids, "labels": e.labels} for e in examples[:3]], pad_id=2)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    weights = [1.0, -0.5, 2.0]
    nats = loss.token_nats(model, batch).split([e.learnt for e in examples[:3]])
    sum(w * of_row.sum() for w, of_row in zip(weights, nats)).backward()
    ours = {n: p.grad.clone() for n, p in trained.items()}
    model.zero_grad()
    sum(w * _plain(model, e) for w, e in zip(weights, examples)).backward()
    for name, parameter in trained.items():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_row_losses_are_those_of_each_row_alone_and_in_the_given_order(model, examples):
    found = loss.row_losses(model, examples, pad_id=2)
    assert [n for _, n in found] == [20, 1, 40, 0]
    for (nats, tokens), example in zip(found, examples):
        expected = _plain(model, example).item() if tokens else 0.0
        assert nats == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_a_label_adds_nothing(model, examples):
    batch = loss.collate([{"input_ids": examples[3].ids, "labels": examples[3].labels}], pad_id=2)
    for trained in (model, model.requires_grad_(True)):  # the head frozen, then trained
        nats = loss.learnt_nats(trained, batch)
        nats.backward()
        assert nats.item() == 0.0


def test_the_mean_is_over_tokens_not_over_rows():
    assert loss.mean_loss([(10.0, 10), (0.0, 0), (2.0, 40)]) == pytest.approx(12 / 50)
    assert loss.mean_loss([(0.0, 0)]) is None


def test_fp32_arithmetic_on_bf16_weights_is_that_of_a_widened_model(tiny_model, examples):
    narrow = load_base(tiny_model, "bf16", CPU)
    with loss.fp32_arithmetic(narrow):
        ours = loss.row_losses(narrow, examples, pad_id=2)
    assert {p.dtype for p in narrow.parameters()} == {torch.bfloat16}
    wide = load_base(tiny_model, "bf16", CPU).float()
    assert ours == loss.row_losses(wide, examples, pad_id=2)
    assert ours != loss.row_losses(narrow, examples, pad_id=2)


def test_heads_that_scale_and_cap_their_logits(tiny_model, examples):
    """Gemma 2 and Granite do; the tiny model of each is random, its arithmetic is real."""
    from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

    sizes = dict(
        vocab_size=49152, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    for family in (
        Gemma2ForCausalLM(Gemma2Config(**sizes, final_logit_softcapping=2.0)),
        GraniteForCausalLM(GraniteConfig(**{k: v for k, v in sizes.items() if k != "head_dim"}, logits_scaling=4.0)),
    ):
        family = family.float().eval()
        with torch.no_grad():
            family.get_output_embeddings().weight.normal_(std=1.0)
        (nats, _), *_ = loss.row_losses(family, examples[:1], pad_id=2)
        plain = _plain(family, examples[0])
        assert nats == pytest.approx(plain.item(), rel=1e-5)

        family.get_output_embeddings().requires_grad_(False)  # as under an adapter
        layer = family.model.layers[0].mlp.down_proj.weight
        batch = loss.collate([{"input_ids": examples[0].ids, "labels": examples[0].labels}], pad_id=2)
        (ours,) = torch.autograd.grad(loss.learnt_nats(family, batch), layer)
        torch.testing.assert_close(ours, *torch.autograd.grad(plain, layer), rtol=1e-3, atol=1e-6)
