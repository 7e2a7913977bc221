"""Rows as one line of tokens: what stands in it, and that values and gradients are those of padded rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ft_core.recipe import TrainRecipe
from ft_core.render import IGNORED, Rendered
from ft_core.train import compiled, making, packable, packing, rows
from ft_core.train.limits import LINES
from ft_core.train.loss import collate, row_losses, token_nats
from ft_core.train.model import learning, load_base
from tests.core.test_train_compiled import needs_compiler

CPU = torch.device("cpu")
SYSTEM, QUESTION = [5, 6, 7, 8], [21, 22]
ROWS = [
    [*SYSTEM, *QUESTION, 31, 32, 33],
    [*SYSTEM, 40, 41],
    [*SYSTEM, *QUESTION, 31, 9],
    [50, *SYSTEM],  # the same tokens elsewhere are others
]


def batch(of_rows: list[list[int]], learnt_from: int = 1) -> dict[str, torch.Tensor]:
    return collate(
        [{"input_ids": ids, "labels": [IGNORED] * learnt_from + ids[learnt_from:]} for ids in of_rows], pad_id=0
    )


def random_rows(lengths: list[int], shared: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(sum(lengths))
    first = torch.randint(20, 40_000, (shared,), generator=draw).tolist()
    return [first + torch.randint(20, 40_000, (n - shared,), generator=draw).tolist() for n in lengths]


def test_what_rows_begin_with_stands_once() -> None:
    line = packing.packed(batch(ROWS))
    ids, positions = line["input_ids"][0], line["position_ids"][0]
    for row, tokens in enumerate(ROWS):
        places = line["places"][row, : len(tokens)]
        assert ids[places].tolist() == tokens
        assert positions[places].tolist() == list(range(len(tokens)))
    distinct = {tuple(tokens[: n + 1]) for tokens in ROWS for n in range(len(tokens))}
    assert len(ids) == LINES and int((ids != 0).sum()) == len(distinct) == 17
    assert len(line["slots"]) == LINES + sum(map(len, ROWS)) - len(distinct)


def test_each_token_knows_its_slots() -> None:
    line = packing.packed(batch(ROWS))
    ends = [*line["starts"][1:].tolist(), len(line["slots"])]
    flat = line["places"].flatten()
    for place, (start, end) in enumerate(zip(line["starts"].tolist(), ends)):
        assert start < end and set(flat[line["slots"][start:end]].tolist()) == {place}
    assert sorted(set(line["slots"].tolist())) == sorted(line["slots"].tolist())


def test_rows_without_padding_get_some() -> None:
    full = batch(random_rows([8, 8, 8], 0))
    assert full["input_ids"].shape == (3, 8)
    line = packing.packed(full)
    assert line["input_ids"].shape == (1, LINES) and line["labels"].shape == line["places"].shape == (3, 32)
    assert (line["labels"][:, 8:] == IGNORED).all()


def test_one_row_stays_as_it_is() -> None:
    one = batch(ROWS[:1])
    assert packing.packed(one) is one


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("lengths", "shared"), [([9, 30, 17, 30], 6), ([12, 12], 11), ([5, 8, 3], 0)])
def test_values_and_gradients_are_those_of_padded_rows(
    tiny_model: Path, attention: str, lengths: list[int], shared: int
) -> None:
    plain, ours = (changed(tiny_model, attention, packs) for packs in (False, True))
    padded = batch(random_rows(lengths, shared), learnt_from=2)
    line = packing.packed(padded)
    assert_alike(plain, padded, ours, line)


def test_what_is_computed_twice_instead_of_kept_is_the_same(tiny_model: Path) -> None:
    plain, ours = changed(tiny_model, "sdpa", packs=False), changed(tiny_model, "sdpa", packs=True)
    ours.gradient_checkpointing_enable()
    ours.enable_input_require_grads()
    padded = batch(random_rows([9, 30, 17], 6))
    assert_alike(plain, padded, ours, packing.packed(padded))


def changed(folder: Path, attention: str, packs: bool):
    model = load_base(folder, "fp32", CPU, attention)
    if packs:
        packable.use(model, 32)
        assert packing.is_used(model)
    tuned = learning(model, TrainRecipe(rank=4))
    torch.manual_seed(5)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:  # they begin as zeros, and so would hide an error in the gradient of A
            torch.nn.init.normal_(parameter, std=0.05)
    return tuned.train()


def assert_alike(plain, padded: dict[str, torch.Tensor], ours, line: dict[str, torch.Tensor]) -> None:
    weights = torch.linspace(0.5, 1.5, int((padded["labels"][:, 1:] != IGNORED).sum()))  # each token's its own
    wanted, found = token_nats(plain, padded), token_nats(ours, line)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for nats in (wanted, found):
        (nats * weights).sum().backward()
    gradients = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert gradients
    for name, p in ours.named_parameters():
        if name in gradients:
            torch.testing.assert_close(p.grad, gradients[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("family", ["Gemma2", "GPT2", "GPTNeoX", "Qwen3"])
def test_other_families(family: str, tmp_path: Path) -> None:
    """Whatever a model does in its attention (caps, norms, learnt places) it does to rows as ever."""
    import transformers

    words = {
        "GPT2": dict(n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
        "GPTNeoX": dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2),
    }
    usual = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16,
    )  # fmt: skip
    config = getattr(transformers, f"{family}Config")(vocab_size=49152, **words.get(family, usual))
    kind = transformers.AutoModelForCausalLM
    torch.manual_seed(1)
    plain, ours = (kind.from_config(config, attn_implementation="eager").float().train() for _ in range(2))
    ours.load_state_dict(plain.state_dict())
    packable.use(ours, 32)
    assert packing.is_used(ours)
    padded = batch(random_rows([9, 30, 17], 6))
    assert_alike(plain, padded, ours, packing.packed(padded))


def test_a_window_is_not_that_of_the_line() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    sizes = dict(
        vocab_size=1000, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=16,
    )  # fmt: skip
    torch.manual_seed(1)
    model = MistralForCausalLM._from_config(MistralConfig(**sizes), attn_implementation="sdpa")
    packable.use(model, 40)
    assert not packing.is_used(model) and model.config._attn_implementation == "sdpa"
    packable.use(model, 16)
    assert packing.is_used(model)


def test_a_model_that_mixes_tokens_elsewhere_gets_rows(tiny_model: Path) -> None:
    model = load_base(tiny_model, "fp32", CPU, "eager")
    model.model.layers[0].mlp.register_forward_hook(lambda module, given, out: out + 9 * out.roll(1, dims=1))
    packable.use(model, 32)
    assert not packing.is_used(model) and model.config._attn_implementation == "eager"


def test_looks_and_answers_are_those_of_the_model_without(tiny_model: Path) -> None:
    plain, ours = (load_base(tiny_model, "fp32", CPU, "eager") for _ in range(2))
    packable.use(ours, 32)
    examples = [Rendered(tuple(ids), tuple(ids)) for ids in random_rows([9, 30, 17], 6)]
    assert row_losses(ours, examples, 0) == row_losses(plain, examples, 0)
    asked = torch.tensor(random_rows([6, 6], 2))
    asked[0, :2] = 0
    seen = (asked != 0).long()
    said = [model.generate(asked, attention_mask=seen, max_new_tokens=5, do_sample=False) for model in (plain, ours)]
    assert torch.equal(*said)


def test_a_saved_model_is_the_familys(tiny_model: Path, tmp_path: Path) -> None:
    model = making.loaded(tiny_model, TrainRecipe(method="full", precision="fp32"), 32, shared_out=False)
    assert packing.is_used(model)
    model.save_pretrained(tmp_path / "saved")
    assert "ft_flow" not in (tmp_path / "saved" / "config.json").read_text(encoding="utf-8")
    assert "ft_flow" not in json.dumps(model.generation_config.to_dict())


@needs_compiler
def test_compiled_layers_take_lines_of_any_length(tiny_model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain, ours = changed(tiny_model, "eager", False), changed(tiny_model, "eager", True)
    compiled.compile_layers(ours, tmp_path)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for lengths, shared in [([9, 30, 17, 30], 6), ([12, 12], 11), ([5, 8, 3], 0), ([90] * 5, 20)]:
            padded = batch(random_rows(lengths, shared), learnt_from=2)
            assert_alike(plain, padded, ours, packing.packed(padded))
            one = token_nats(ours, packing.packed(padded))
            assert torch.equal(one, token_nats(ours, packing.packed(padded)))


def test_what_rows_share_is_counted() -> None:
    def rendered(*ids: int) -> Rendered:
        return Rendered(ids, ids)

    better, worse = [rendered(1, 2, 3, 4), rendered(1, 2, 8, 9, 9)], [rendered(1, 2, 3, 7), rendered(1, 2, 8, 9, 6)]
    assert rows.alike(better, []) == (2, 0)
    assert rows.alike(better, worse) == (2, 4)  # 3 and 4
    assert rows.alike(better[:1], []) == (0, 0)
    assert rows.alike([], []) == (0, 0)
