"""Exports of every method: merged is what was compared, GGUFs pass their checks, and no adapter is made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ft_core import jobs
from ft_core.compare.engine import Engine
from ft_core.conversation import Message
from ft_core.errors import FTError
from ft_core.export import start
from ft_core.recipe import CompareRecipe
from ft_core.workspace import Job, Workspace

from .exporting import export_job, exported, result_of
from .trainings import METHODS, lighthouse, talkative, trained

WHOLE = ("layers", "full")
ASKED = (Message("user", "What does lamp 3 show?"),)
CARDS = {
    "lora": "LoRA rank 4, alpha 32",
    "rslora": "rsLoRA rank 4, alpha 32",
    "dora": "DoRA rank 4, alpha 32",
    "layers": "the last 1 layers and the final norm trained",
    "full": "full fine-tuning of all weights",
}


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tiny_model, tmp_path_factory.mktemp("bases") / "talkative")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory, base: Path):
    """One training of each method that a test asks for."""
    made: dict[str, Job] = {}

    def of(method: str) -> Job:
        if method not in made:
            project = lighthouse(Workspace.at(tmp_path_factory.mktemp(method)))
            made[method] = trained(project, base, method, learning_rate=1e-2 if method == "layers" else 5e-3)
        return made[method]

    return of


@pytest.mark.parametrize("method", METHODS)
def test_the_merged_model_says_what_was_compared(training, method: str, tmp_path: Path) -> None:
    job = training(method)
    kinds = ["merged", *(["gguf:F16"] if method in WHOLE else [])]
    result = result_of(exported(export_job(job, *kinds, out=str(tmp_path))))
    assert result["verified"], result["checks"]
    assert (tmp_path / "fjord-F16.gguf").exists() == (method in WHOLE)
    folder = tmp_path / "fjord"
    if method in WHOLE:  # changed weights are rounded as merging rounds them
        engine = Engine.of(job, "bf16")
        sampling = CompareRecipe(max_tokens=12, temperature=0.0)
        said = {d.side: d.text for d in engine.stream({"before": ASKED, "after": ASKED}, sampling) if d.done}
        assert said["after"] == greedy(folder, torch.bfloat16, 12) != said["before"]
    else:  # an adapter stays beside its base, and is only nearly the same
        before, after = next_tokens(Engine.of(job, "fp32"))
        change, error = (after - before).norm(), (of_merged(folder) - after).norm()
        assert error < 0.1 * change  # merging rounds to bf16
    card = ModelCard.load(tmp_path / "fjord" / "README.md")
    assert f"supervised fine-tuning, {CARDS[method]}" in card.text


def next_tokens(engine: Engine) -> torch.Tensor:
    """Logits (side, vocabulary) of the first token that each side would answer with."""
    return engine._rows([engine.renderer.prompt(ASKED)] * 2, 1).begin()


def of_merged(folder: Path) -> torch.Tensor:
    """The same, (vocabulary,), by plain transformers in fp32 and an exported model."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return model(**asked(folder)).logits[0, -1]


def asked(folder: Path) -> dict[str, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [m.to_dict() for m in ASKED]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)


def greedy(folder: Path, dtype: torch.dtype, tokens: int) -> str:
    """What plain transformers answers with an exported model."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    ids = asked(folder)
    out = model.generate(**ids, max_new_tokens=tokens, do_sample=False)
    return AutoTokenizer.from_pretrained(folder).decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("method", WHOLE)
def test_merged_is_the_base_with_the_changed_weights(training, base: Path, method: str, tmp_path: Path) -> None:
    job = training(method)
    result_of(exported(export_job(job, "merged", out=str(tmp_path))))
    merged, before = load_file(tmp_path / "fjord" / "model.safetensors"), load_file(base / "model.safetensors")
    changed = load_file(job.adapter / "trained.safetensors")
    assert merged.keys() == before.keys()
    for name, weight in merged.items():
        assert torch.equal(weight, changed.get(name, before[name]).bfloat16()), name
    assert json.loads((tmp_path / "fjord" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_dora_adapter_is_pefts(training, base: Path, tmp_path: Path) -> None:
    job = training("dora")
    assert result_of(exported(export_job(job, "adapter", out=str(tmp_path))))["verified"]
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "fjord-lora")
    assert loaded.peft_config["default"].use_dora
    assert "dora" in ModelCard.load(tmp_path / "fjord-lora" / "README.md").data.tags


@pytest.mark.parametrize("method", WHOLE)
def test_there_is_no_adapter_to_give(training, method: str) -> None:
    job = training(method)
    before = len(job.project.jobs())
    for to, options in ((["adapter"], {}), (["merged", "hub"], {"push": "adapter"})):
        with pytest.raises(FTError, match=f"the method {method} changes weights of the model itself") as refused:
            start.start(job.project, job, to, options=options, token="hf_x")
        assert "merged" in refused.value.hint
    assert len(job.project.jobs()) == before
    assert jobs.trained(job.project) == jobs.trained(job.project, job.id) == job


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_goes_to_the_hub_follows_the_method(training, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start.jobs, "start", lambda job, secrets: None)
    job = start.start(training(method).project, training(method), ["hub"], token="hf_x")
    assert start.Wanted.of(job).push == ("merged" if method == "full" else "adapter")
