"""LoRA's product as one function, against peft's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ft_core.recipe import TrainRecipe
from ft_core.train.fast import use_fast_lora
from ft_core.train.model import add_adapter, load_base


def _tuned(folder: Path, fast: bool, precision: str = "fp32", dropout: float = 0.0):
    model = add_adapter(load_base(folder, precision, torch.device("cpu")), TrainRecipe(rank=4, dropout=dropout))
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
    for fast in (False, True):
        logits, gradients = _step(_tuned(tiny_model, fast, "bf16"))
        errors[fast] = (logits.float() - exact).norm()
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
