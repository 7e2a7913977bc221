"""Compiled layers train what the plain ones do, and a training that is taken up again computes the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ft_core import recipe
from ft_core.machine import Machine
from ft_core.recipe import TrainRecipe
from ft_core.train import compiled, fast
from ft_core.train.loss import collate, learnt_nats, row_losses
from ft_core.train.model import learning, load_base
from ft_core.workspace import Workspace

from .trainings import job_of, lighthouse, losses, notes, same, train

CPU = torch.device("cpu")
QUICK = TrainRecipe(rank=4, precision="fp32")
HERE = Machine(2, 8 * 10**9, "", 0)

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def kept_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test compiles the next one reads, and what comes after these tests does not."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))


def tuned(folder: Path):
    return learning(load_base(folder, "fp32", CPU, "eager"), QUICK).train()


def batch(rows: int, tokens: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(20, 40_000, (rows, tokens), generator=torch.Generator().manual_seed(tokens)).tolist()
    return collate([{"input_ids": i, "labels": [-100, *i[1:]]} for i in ids], 0)


@needs_compiler
def test_losses_and_gradients_are_those_of_the_plain_layers(tiny_model: Path, cache: Path) -> None:
    plain, fast = tuned(tiny_model), tuned(tiny_model)
    compiled.compile_layers(fast.eval(), cache)  # as a session has it until it trains
    fast.train()
    with torch._dynamo.config.patch(error_on_recompile=True):  # any number of rows and tokens is one code
        for rows, tokens in [(3, 24), (2, 40), (1, 16), (5, 8), (3, 72)]:
            found = []
            for model in (plain, fast):
                nats = learnt_nats(model, batch(rows, tokens))
                nats.backward()
                found.append(nats.item())
            assert found[1] == pytest.approx(found[0], rel=1e-5)
    gradients = {name: p.grad for name, p in plain.named_parameters() if p.requires_grad}
    for name, p in fast.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.grad, gradients[name], rtol=1e-3, atol=1e-5, msg=name)


@needs_compiler
def test_it_is_compiled_code_that_learns_and_plain_layers_that_look(tiny_model: Path, cache: Path) -> None:
    model = tuned(tiny_model)
    compiled.compile_layers(model, cache)
    layer = model.get_base_model().model.layers[1]
    ran = []
    inner = layer.forward.args[1]
    layer.forward = type(layer.forward)(
        layer.forward.func,
        layer,
        lambda *args, **options: ran.append(1) or inner(*args, **options),
        *layer.forward.args[2:],
    )
    learnt_nats(model, batch(2, 16))
    assert len(ran) == 1
    row_losses(model, [], 0)
    with torch.no_grad():
        learnt_nats(model, batch(2, 16))
    assert len(ran) == 1


@needs_compiler
def test_code_that_was_kept_is_that_of_the_same_function(
    tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradient() -> torch.Tensor:
        torch._dynamo.reset()  # as in another process: what is not read from the cache is compiled
        model = tuned(tiny_model)
        compiled.compile_layers(model, cache)
        learnt_nats(model, batch(3, 24)).backward()
        return model.get_base_model().model.layers[1].mlp.up_proj.lora_B["default"].weight.grad

    def otherwise(ctx, gradient):
        *others, to_up = own(ctx, gradient)
        return *others, 3 * to_up

    def from_cache() -> int:
        return torch._dynamo.utils.counters["aot_autograd"]["autograd_cache_hit"]

    first, before = gradient(), from_cache()
    assert torch.equal(gradient(), first) and from_cache() == before + 1
    own = fast._Product.backward
    monkeypatch.setattr(fast._Product, "backward", staticmethod(otherwise))
    torch.testing.assert_close(gradient(), 3 * first)
    assert from_cache() == before + 1
    torch._dynamo.reset()


@needs_compiler
def test_a_resumed_training_is_bit_identical(workspace: Workspace, tiny_model: Path) -> None:
    project = lighthouse(workspace)
    settings = {"compiled": "yes", "steps": 6, "evaluate_every": 6, "micro_batch": 4}
    whole, parts = (job_of(project, tiny_model, **settings) for _ in range(2))
    train(whole)
    for _ in range(8):
        train(parts, deadline=0.0)
    assert losses(parts) == losses(whole)
    assert same(parts.adapter, whole.adapter)
    assert recipe.load(whole.recipe).train.compiled == "yes"
    assert notes(whole) == []
    assert any((workspace.cache / "compiled").iterdir())


def test_what_cannot_be_compiled_is_said_and_trained_as_ever(
    workspace: Workspace, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    job = job_of(lighthouse(workspace), tiny_model, compiled="yes", steps=2)
    train(job)
    (said,) = [note for note in notes(job) if "compiled" in note]
    assert said.startswith("The layers were not compiled: ")
    assert said.endswith("needs a C++ compiler, and no-such-compiler is not installed.")
    assert recipe.load(job.recipe).train.compiled == "no"
    assert losses(job).keys() == {1, 2}


def test_a_short_training_is_not_compiled_by_itself(workspace: Workspace, tiny_model: Path) -> None:
    job = job_of(lighthouse(workspace), tiny_model, steps=1)
    train(job)
    assert recipe.load(job.recipe).train.compiled == "auto"


@pytest.mark.parametrize(
    ("train", "machine", "word"),
    [
        ({}, Machine(2, 8 * 10**9, "L4", 24 * 10**9), "CPUs"),
        ({"method": "dora"}, HERE, "lora"),
        ({"method": "full"}, HERE, "lora"),
        ({"dropout": 0.1}, HERE, "dropout"),
    ],
)
def test_where_it_does_not_help_it_says_why(train: dict, machine: Machine, word: str) -> None:
    assert word in compiled.why_not(torch.nn.Linear(2, 2), TrainRecipe(**train), machine)


def test_a_compiler_that_fails_leaves_the_model_as_it_was(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "why_not", lambda *_: "")
    model = tuned(tiny_model)
    before = learnt_nats(model, batch(2, 16)).item()

    def broken(*args, **options):
        raise torch._dynamo.exc.TorchDynamoException("no compiler today")

    monkeypatch.setattr(torch, "compile", lambda *args, **options: broken)
    with pytest.raises(RuntimeError, match="no compiler today"):
        compiled.compile_layers(model, tmp_path)
    (tmp_path / "half a file.so").write_bytes(b"\x7fELF")
    assert compiled.tried(model, QUICK, tmp_path) == "the compiler failed: no compiler today"
    assert not tmp_path.exists()  # or what a kill left there would fail every time
    assert learnt_nats(model, batch(2, 16)).item() == before
    assert all(p.grad is None for p in model.parameters())
