"""Each method of training on a two-layer model: what learns, that it goes down, that a resume repeats it exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ft_core import recipe
from ft_core.errors import FTError
from ft_core.events import Finished, Metric, Stopped
from ft_core.machine import Machine
from ft_core.recipe import TrainRecipe
from ft_core.train import making, methods, model
from ft_core.train.loss import fp32_arithmetic, mean_loss, row_losses
from ft_core.train.model import learning, load_base
from ft_core.train.session import Session
from ft_core.workspace import Job, Project, Workspace

from .trainings import METHODS, by_method, events_of, lighthouse, trained

CPU = torch.device("cpu")
WHOLE = ("layers", "full")


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return lighthouse(workspace)


@pytest.fixture(scope="module", params=METHODS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Job:
    """An uninterrupted run of each method."""
    project = lighthouse(Workspace.at(tmp_path_factory.mktemp(request.param)))
    return trained(project, tiny_model, request.param)


def kept(job: Job) -> dict[str, torch.Tensor]:
    (file,) = job.adapter.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("method", METHODS)
def test_what_learns_changes_and_nothing_else_does(project: Project, tiny_model: Path, method: str) -> None:
    job = by_method(project, tiny_model, method, steps=3)
    run = Session(job, lambda event: None, lambda seconds: False)
    run.run()
    fresh = learning(load_base(tiny_model, "fp32", CPU, method=method), run.recipe.train)
    after = dict(run.model.named_parameters())
    assert after.keys() == dict(fresh.named_parameters()).keys()
    for name, parameter in fresh.named_parameters():
        assert parameter.requires_grad == after[name].requires_grad == learns(name, method), name
        assert torch.equal(parameter, after[name]) != parameter.requires_grad, name
        assert not parameter.requires_grad or after[name].dtype == torch.float32


def learns(name: str, method: str) -> bool:
    if method == "full":
        return True
    if method == "layers":  # one of two
        return name.startswith(("model.layers.1.", "model.norm."))
    return "lora_" in name


def test_it_learns(whole: Job) -> None:
    figures = [event.values for event in events_of(whole) if isinstance(event, Metric)]
    losses = [values["loss"] for values in figures if "loss" in values]
    assert losses[-1] < losses[0] - 0.1
    last = events_of(whole)[-1]
    assert isinstance(last, Finished) and last.result["heldout_after"] < last.result["heldout_before"] - 0.1


def test_a_stop_and_a_resume_give_the_weights_of_one_run(whole: Job, project: Project, tiny_model: Path) -> None:
    method = method_of(whole)
    job = by_method(project, tiny_model, method)
    ends: list[Stopped | Finished] = []

    def say(event) -> None:
        if isinstance(event, Metric) and event.step == 3:
            job.stop.touch()
        if isinstance(event, Stopped | Finished):
            ends.append(event)

    Session(job, say, lambda seconds: job.stop.exists()).run()
    assert isinstance(ends[-1], Stopped) and ends[-1].step in (3, 4)
    assert not all(torch.equal(a, b) for a, b in zip(kept(job).values(), kept(whole).values()))
    job.stop.unlink()
    Session(job, say, lambda seconds: False).run()
    assert isinstance(ends[-1], Finished)
    one, other = kept(job), kept(whole)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert ends[-1].result["heldout_after"] == events_of(whole)[-1].result["heldout_after"]


def test_an_end_that_was_saved_and_not_finished_is_finished_from_its_checkpoint(
    whole: Job, project: Project, tiny_model: Path
) -> None:
    """As after a kill between the last checkpoint and the last figures."""
    job = by_method(project, tiny_model, method_of(whole))
    shutil.copytree(whole.checkpoints, job.checkpoints)
    said = []
    Session(job, said.append, lambda seconds: False).run()
    one, other = kept(job), kept(whole)
    assert isinstance(said[-1], Finished) and all(torch.equal(one[name], other[name]) for name in other)


def method_of(job: Job) -> str:
    return recipe.load(job.recipe).train.method


def test_what_is_kept_is_what_changed(whole: Job, tiny_model: Path) -> None:
    method = method_of(whole)
    names = {file.name for file in whole.adapter.iterdir()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    if method not in WHOLE:
        assert names == {"adapter_model.safetensors", "adapter_config.json", *tokenizer}
        settings = json.loads((whole.adapter / "adapter_config.json").read_text())
        assert (settings["use_rslora"], settings["use_dora"]) == (method == "rslora", method == "dora")
        return
    assert names == {"trained.safetensors", "trained.json", *tokenizer}
    about = json.loads((whole.adapter / "trained.json").read_text())
    assert about["base_model_name_or_path"] == tiny_model.name and about["method"] == method
    base = load_base(tiny_model, "fp32", CPU).state_dict()
    changed = kept(whole)
    assert set(changed) == {name for name in base if learns(name, method) and name != "lm_head.weight"}
    assert not any(torch.equal(changed[name], base[name]) for name in changed)


@pytest.mark.parametrize("method", ["dora", *WHOLE])
def test_in_bf16_it_learns_too_and_is_measured_in_fp32(project: Project, tiny_model: Path, method: str) -> None:
    job = by_method(project, tiny_model, method, precision="bf16", steps=4)
    said: list = []
    run = Session(job, said.append, lambda seconds: False)
    run.run()
    stored = {name: p.dtype for name, p in run.model.named_parameters()}
    narrow = {name for name, dtype in stored.items() if dtype == torch.bfloat16}
    assert narrow == set() if method == "full" else narrow and not any(learns(name, method) for name in narrow)
    result = said[-1].result
    assert result["heldout_after"] < result["heldout_before"]
    measured = mean_loss(row_losses(run.model.float(), run.rows.heldout, 0))
    assert measured == pytest.approx(result["heldout_after"], abs=1e-5)


def test_layers_beyond_the_models_are_refused(tiny_model: Path) -> None:
    with pytest.raises(FTError, match="3 layers are to learn, and this model has 2"):
        learning(load_base(tiny_model, "fp32", CPU), TrainRecipe(method="layers", layers=3))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_layers_keep_no_memory_for_the_way_back(tiny_model: Path, precision: str) -> None:
    opened = learning(load_base(tiny_model, precision, CPU, method="layers"), TrainRecipe(method="layers", layers=1))
    seen = {}
    for i, layer in enumerate(opened.model.layers):
        layer.register_forward_hook(lambda m, _, out, i=i: seen.__setitem__(i, out.requires_grad))
    opened(torch.arange(40, 60)[None])
    assert seen == {0: False, 1: True}


@pytest.mark.parametrize("method", ["qlora", "qlora-8bit"])
def test_quantized_methods_are_refused_before_there_is_a_job(project: Project, tiny_model: Path, method: str) -> None:
    with pytest.raises(FTError, match=f"{method} needs an NVIDIA GPU") as refused:
        by_method(project, tiny_model, method)
    assert "lora" in refused.value.hint and not project.jobs()


def test_a_job_from_another_machine_is_refused_before_anything_is_loaded(
    project: Project, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(methods, "why_not", lambda method, machine: "")
        job = by_method(project, tiny_model, "qlora")
    said: list = []
    with pytest.raises(FTError, match="needs an NVIDIA GPU"):
        Session(job, said.append, lambda seconds: False).run()
    assert said == []


def test_why_a_machine_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia, apple = Machine(8, 2**35, "NVIDIA L4", 2**34), Machine(8, 2**35, "Apple GPU", 2**35)
    assert "Apple GPU" in methods.why_not("qlora", apple)
    monkeypatch.setattr(methods.importlib.util, "find_spec", lambda name: None)
    assert "bitsandbytes" in methods.why_not("qlora", nvidia)
    monkeypatch.setattr(methods.importlib.util, "find_spec", lambda name: name)
    assert methods.why_not("qlora", nvidia) == methods.why_not("qlora-8bit", nvidia) == ""
    assert {methods.why_not(method, apple) for method in METHODS} == {""}


def test_what_is_asked_of_bitsandbytes(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict = {}

    def load(folder, **options):
        asked.update(options)
        return torch.nn.Linear(2, 2)

    monkeypatch.setattr(model.AutoModelForCausalLM, "from_pretrained", load)
    model.load_base(tiny_model, "bf16", CPU, method="qlora")
    four = asked["quantization_config"]
    assert four.load_in_4bit and four.bnb_4bit_use_double_quant and four.bnb_4bit_quant_type == "nf4"
    assert four.bnb_4bit_compute_dtype == asked["dtype"] == torch.bfloat16 and asked["device_map"] == {"": CPU}
    model.load_base(tiny_model, "fp16", CPU, method="qlora-8bit")
    assert asked["quantization_config"].load_in_8bit


def test_an_adapter_on_a_quantized_base_learns_in_fp32(
    project: Project, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing wants a GPU: here the base only says that it is quantized, which is what TRL looks at."""
    real = making.load_base

    def load(folder, precision, device, attention, method):
        base = real(folder, precision, device, attention)
        base.is_loaded_in_8bit = True
        return base

    monkeypatch.setattr(methods, "why_not", lambda method, machine: "")
    monkeypatch.setattr(making, "load_base", load)
    run = Session(by_method(project, tiny_model, "qlora-8bit", steps=2), lambda event: None, lambda seconds: False)
    run.run()
    assert {p.dtype for p in run.model.parameters() if p.requires_grad} == {torch.float32}
    assert not any(torch.equal(t, t.bfloat16().float()) for t in kept(run.job).values())


def test_whole_numbers_are_not_widened() -> None:
    layer = torch.nn.Linear(2, 2).bfloat16()
    layer.register_parameter("packed", torch.nn.Parameter(torch.ones(3, dtype=torch.uint8), requires_grad=False))
    seen = []
    layer.register_forward_pre_hook(lambda m, _: seen.extend([m.weight.dtype, m.packed.dtype]))
    with fp32_arithmetic(layer):
        layer(torch.ones(1, 2))
    assert seen == [torch.float32, torch.uint8]
    assert (layer.weight.dtype, layer.packed.dtype) == (torch.bfloat16, torch.uint8)


def test_advice() -> None:
    def said(**settings) -> str:
        return " ".join(text for text, _ in methods.advice(TrainRecipe(**settings)))

    assert said() == said(method="full", learning_rate=2e-5) == said(method="rslora", rank=128) == ""
    assert "0.0005 suits an adapter" in said(method="full") and "0.0005 suits an adapter" in said(method="layers")
    assert "rank 128" in said(rank=128)
    assert "dropout has no effect" in said(method="full", learning_rate=2e-5, dropout=0.1)


def test_a_method_in_words() -> None:
    assert methods.words(TrainRecipe()) == "LoRA rank 16, alpha 32"
    assert methods.words(TrainRecipe(method="qlora")) == "QLoRA (4-bit base) rank 16, alpha 32"
    said = {methods.words(TrainRecipe(method=method)) for method in methods.NAMES}
    assert len(said) == 7


def test_the_work_of_a_training_is_counted(tiny_model: Path) -> None:
    """Forward and back by every weight, and once more where one learns."""
    base = load_base(tiny_model, "fp32", CPU)
    weights = base.num_parameters()
    assert model.flops(base, 10) == 40 * weights
    tuned = learning(base, TrainRecipe())
    adapter = sum(p.numel() for p in tuned.parameters()) - weights
    assert model.flops(tuned, 10) == 40 * (weights + adapter) + 20 * adapter
    whole = TrainRecipe(method="full")
    assert model.flops(learning(load_base(tiny_model, "fp32", CPU, method="full"), whole), 1) == 6 * weights
