"""LoRA's product as one function, against peft's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ft_core.recipe import TrainRecipe
from ft_core.train import fast
from ft_core.train.fast import use_fast_lora
from ft_core.train.model import add_adapter, load_base


def _tuned(folder: Path, fast: bool, precision: str = "fp32", dropout: float = 0.0):
    model = add_adapter(load_base(folder, precision, torch.device("cpu")), TrainRecipe(rank=4, dropout=dropout))
    return _changed(model, fast)


def _changed(model, fast: bool):
    """As after some steps: up begins as zeros, and so would hide an error in the gradient of down."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    if fast:
        use_fast_lora(model)
    return model.train()


def _step(model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    ids = torch.randint(20, 40_000, (3, 24), generator=torch.Generator().manual_seed(2))
    out = model(input_ids=ids, labels=ids)
    out.loss.backward()
    return out.logits.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_in_fp32_values_and_gradients_are_pefts(tiny_model):
    logits, gradients = _step(_tuned(tiny_model, fast=False))
    fast_logits, fast_gradients = _step(_tuned(tiny_model, fast=True))
    torch.testing.assert_close(fast_logits, logits, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == fast_gradients.keys()
    for name in gradients:
        torch.testing.assert_close(fast_gradients[name], gradients[name], rtol=1e-4, atol=1e-7, msg=name)


def test_in_bf16_it_is_as_near_to_fp32_as_peft_is(tiny_model):
    exact, _ = _step(_tuned(tiny_model, fast=False).float())
    errors = {}
    for ours in (False, True):
        logits, gradients = _step(_tuned(tiny_model, ours, "bf16"))
        errors[ours] = (logits.float() - exact).norm()
        assert {g.dtype for g in gradients.values()} == {torch.float32}
    assert errors[True] < 1.5 * errors[False]


def test_disabled_adapters_leave_the_base(tiny_model):
    model = _tuned(tiny_model, fast=True).eval()
    base = load_base(tiny_model, "fp32", torch.device("cpu")).eval()
    ids = torch.arange(100, 120)[None]
    with torch.no_grad():
        tuned = model(ids).logits
        with model.disable_adapter():
            assert torch.equal(model(ids).logits, base(ids).logits)
        assert not torch.allclose(tuned, base(ids).logits, atol=1e-3)


def test_dropout_stays_with_peft(tiny_model):
    model = _tuned(tiny_model, fast=True, dropout=0.5)
    ids = torch.arange(100, 120)[None]
    torch.manual_seed(0)
    first = model(ids).logits
    assert not torch.allclose(first, model(ids).logits)


@pytest.mark.parametrize("again", [False, True])
def test_what_is_saved_is_what_peft_reads(tiny_model, tmp_path, again):
    from peft import PeftModel

    model = _tuned(tiny_model, fast=True).eval()
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    loaded = PeftModel.from_pretrained(load_base(tiny_model, "fp32", torch.device("cpu")), tmp_path).eval()
    if again:
        use_fast_lora(loaded)
    ids = torch.arange(100, 120)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)


def _qwen() -> torch.nn.Module:
    """Of an architecture whose query, key and value have biases."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2)).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj", "up_proj"]])
def test_biases_and_some_of_the_layers_alone(targets):
    from peft import LoraConfig, get_peft_model

    found = []
    for ours in (False, True):
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
        model = _changed(get_peft_model(_qwen(), lora), ours)
        ids = torch.arange(20, 44).reshape(2, 12)
        out = model(input_ids=ids, labels=ids)
        out.loss.backward()
        found.append([out.logits, *(p.grad for p in model.parameters() if p.requires_grad)])
    for plain, fast_ones in zip(*found, strict=True):
        torch.testing.assert_close(fast_ones, plain, rtol=1e-4, atol=1e-6)


def test_layers_that_read_the_same_are_computed_as_one_and_only_then(tiny_model, monkeypatch):
    model = _tuned(tiny_model, fast=True)
    attention = model.get_base_model().model.layers[0].self_attn
    query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
    asked = []
    real = fast.product
    monkeypatch.setattr(fast, "product", lambda a, b: asked.append(tuple(b.shape)) or real(a, b))
    one, other = (torch.randn(2, 5, query.in_features) for _ in range(2))
    together = [query(one), key(one), value(one)]
    width = query.out_features + 2 * key.out_features
    assert asked == [(query.in_features, width)]
    mixed = [query(one), key(other), value(one), query(one)]  # no model does
    assert len(asked) > 2
    for i, layer in [(0, query), (2, value), (3, query)]:
        with torch.no_grad():
            torch.testing.assert_close(mixed[i], layer(one), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(mixed[1], key(other), rtol=1e-5, atol=1e-5)
        for ours, layer in zip(together, (query, key, value)):
            torch.testing.assert_close(ours, layer(one), rtol=1e-5, atol=1e-5)


def test_joined_weights_take_no_memory_twice_and_can_be_merged_and_saved(tiny_model, tmp_path):
    model = _tuned(tiny_model, fast=True).eval()
    layers = model.get_base_model().model.layers
    for layer in layers:
        for some in [("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")]:
            parent = layer.self_attn if some[0] == "q_proj" else layer.mlp
            assert len({getattr(parent, n).base_layer.weight.untyped_storage().data_ptr() for n in some}) == 1
    assert len(fast.weights(model)) == 4 * len(layers)
    ids = torch.arange(100, 120)[None]
    with torch.no_grad():
        logits = model(ids).logits
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(ids).logits, logits, rtol=1e-4, atol=1e-4)
        merged.save_pretrained(tmp_path)
        again = load_base(tmp_path, "fp32", torch.device("cpu")).eval()
        torch.testing.assert_close(again(ids).logits, logits, rtol=1e-4, atol=1e-4)
