"""Training what was trained before: where it begins, what decides, what is refused, and that nothing is lost."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ft_core import about, jobs, recipe
from ft_core.compare import heldout as comparing
from ft_core.conversation import Conversation, Message
from ft_core.data.freeze import read_frozen
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import EventWriter, Finished, Metric, Stopped
from ft_core.export import card
from ft_core.export.merge import merge
from ft_core.export.trained import Trained
from ft_core.recipe import ComputeRecipe, DataRecipe, ModelRecipe, Recipe, TrainRecipe
from ft_core.render import Renderer
from ft_core.train import further, preflight, rows, start
from ft_core.train.loss import row_losses
from ft_core.train.model import learning, load_base
from ft_core.train.sft import train_slice
from ft_core.workspace import Job, Project, Workspace

from .adapters import make_adapter
from .trainings import curve, lighthouse, losses, notes, same, train, view

SFT = TrainRecipe(
    steps=6, learning_rate=5e-3, batch_size=4, micro_batch=2, rank=4, alpha=8, layers=1, precision="fp32",
    save_every=2, evaluate_every=3, warmup=0.2, schedule="constant", keep="last", probes=("What does lamp 3 show?",),
)  # fmt: skip
DPO = replace(SFT, learns="preferences", beta=0.3, steps=4, warmup=0.0)
CPU = torch.device("cpu")


def job_of(project: Project, base: Path, settings: TrainRecipe, adapter: str = "") -> Job:
    wanted = Recipe(DataRecipe(heldout=0.2), model=ModelRecipe(base=base.name, adapter=adapter), train=settings)
    return start.create(project, wanted, base.parent)


def votes(project: Project) -> None:
    """Puts pairs in the place of the rows."""
    with Store(project.data) as store:
        store.delete([id for id, _, _ in store.conversations()])
        store.add(
            [
                Conversation(
                    (Message("user", f"What does lamp {i} show?"), Message("assistant", f"Lamp {i} shows red.")),
                    rejected=f"Who knows what lamp {i} shows{'?' * (1 + i % 3)}",
                )
                for i in range(14)
            ]
        )


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Job:
    """A finished run, in a project of its own."""
    project = lighthouse(Workspace.at(tmp_path_factory.mktemp("before")))
    job = job_of(project, tiny_model, SFT)
    assert isinstance(train(job)[-1], Finished)
    return job


@pytest.fixture
def before(sft: Job, workspace: Workspace) -> Job:
    """The same in a fresh home, where tests may add to the project and take away."""
    there = workspace.project(sft.project.name, create=True)
    shutil.copytree(sft.project.path, there.path, dirs_exist_ok=True)
    return there.job(sft.id)


def test_preferences_go_on_from_the_persons_own_answers(before: Job, tiny_model: Path) -> None:
    """The reference, and what the first step finds, is the model as it was before this training: base and adapter."""
    votes(before.project)
    job = job_of(before.project, tiny_model, DPO, "newest")
    assert isinstance(train(job)[-1], Finished)
    margins = {step: figures["margin"] for step, figures in view(job).metrics.items() if "margin" in figures}
    assert margins[1] == pytest.approx(0.0, abs=1e-5) and losses(job)[1] == pytest.approx(0.6931, abs=1e-4)
    assert margins[4] > margins[2] > 0.0

    reference = json.loads((job.path / "report" / "reference.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    bare = ratios(job, base)
    started = ratios(job, PeftModel.from_pretrained(base, before.adapter))
    assert reference["heldout_fp32"] == pytest.approx(started, abs=1e-4)
    assert max(abs(a - b) for a, b in zip(started, bare)) > 0.5  # the bare base is something else

    result = view(job).result
    assert result["heldout_before"] > result["heldout_start"] + 0.1  # the base; what it went on from
    assert curve(job)[0] == pytest.approx(result["heldout_start"])
    measured = comparing.evaluate(job)  # "before" in Compare is the base
    assert measured.before == pytest.approx(result["heldout_before"], abs=1e-4)
    assert measured.after == pytest.approx(result["heldout_after"], abs=1e-4)


def ratios(job: Job, model: torch.nn.Module) -> list[float]:
    """ln p(better) - ln p(worse) of the held-out pairs, by plain transformers and peft."""
    found = rows.render(read_frozen(job.dataset), Renderer.of(job.adapter), DPO)
    worse, better = (row_losses(model, side, 0) for side in (found.heldout_worse, found.heldout))
    return [w - b for (w, _), (b, _) in zip(worse, better)]


def test_it_begins_with_what_was_trained_to_the_last_bit(before: Job, tiny_model: Path) -> None:
    job = job_of(before.project, tiny_model, SFT, before.id)
    begun = learning(load_base(tiny_model, "fp32", CPU), SFT, job.path / further.FOLDER)
    kept = load_file(before.adapter / "adapter_model.safetensors")
    found = {n.replace(".default", ""): p for n, p in begun.named_parameters() if p.requires_grad}
    assert found.keys() == kept.keys() and all(torch.equal(found[name], kept[name]) for name in kept)
    assert all(p.dtype == torch.float32 for p in found.values())


def test_it_goes_on_below_where_it_began_and_the_older_run_may_go(before: Job, tiny_model: Path) -> None:
    about.keep(before, name="First try")
    job = job_of(before.project, tiny_model, SFT, "newest")
    about.delete(before, [before])
    assert recipe.load(job.recipe).model.adapter == further.FOLDER
    assert isinstance(train(job)[-1], Finished)
    result = view(job).result
    assert result["heldout_after"] < result["heldout_start"] < result["heldout_before"]
    assert list(curve(job).values()) == sorted(curve(job).values(), reverse=True)
    assert "It goes on from First try (LoRA rank 4, alpha 8)." in notes(job)
    report = (job.path / "report" / "report.md").read_text()
    assert "| model.adapter | First try |" in report and "held-out loss of what it went on from" in report


def test_its_rank_alpha_and_kind_are_those_it_was_trained_with(sft: Job, tiny_model: Path, before: Job) -> None:
    job = job_of(before.project, tiny_model, replace(SFT, rank=32, alpha=64, method="rslora"), "newest")
    frozen = recipe.load(job.recipe).train
    assert (frozen.method, frozen.rank, frozen.alpha, frozen.learning_rate) == ("lora", 4, 8, SFT.learning_rate)
    (note,) = notes(job)
    assert "decides method lora, rank 4, alpha 8; the recipe's method rslora, rank 32, alpha 64 is not taken" in note


def test_a_stop_and_a_resume_give_the_weights_of_one_run(before: Job, tiny_model: Path) -> None:
    whole, job = (job_of(before.project, tiny_model, SFT, before.id) for _ in range(2))
    train(whole)
    shutil.rmtree(before.path)
    said = train_until(job, 3)
    assert isinstance(said[-1], Stopped)
    job.stop.unlink()
    assert isinstance(train(job)[-1], Finished)
    assert same(job.adapter, whole.adapter) and not same(job.adapter, job.path / further.FOLDER)
    results = [view(one).result for one in (whole, job)]
    assert results[0]["heldout_start"] == results[1]["heldout_start"]
    assert results[0]["heldout_after"] == results[1]["heldout_after"]


def train_until(job: Job, step: int) -> list:
    """One slice that is stopped after `step`."""
    writer, said = EventWriter(job.events), []
    for event in train_slice(job, None):
        writer.write(event)
        said.append(event)
        if isinstance(event, Metric) and event.step == step:
            jobs.stop(job)
    writer.close()
    return said


def test_a_finished_one_goes_on_to_more_steps(before: Job, tiny_model: Path) -> None:
    short, long = (
        job_of(before.project, tiny_model, replace(SFT, steps=steps, warmup=0.0), before.id) for steps in (4, 6)
    )
    train(short)
    train(long)
    wanted = recipe.load(short.recipe)
    short.recipe.write_text(recipe.dump(replace(wanted, train=replace(wanted.train, steps=6))))
    assert isinstance(train(short)[-1], Finished)
    assert same(short.adapter, long.adapter)


@pytest.mark.parametrize("method", ["dora", "layers", "full"])
def test_each_method_goes_on(workspace: Workspace, tiny_model: Path, method: str) -> None:
    project = lighthouse(workspace)
    settings = replace(SFT, method=method)
    first = job_of(project, tiny_model, settings)
    train(first)
    second = job_of(project, tiny_model, replace(settings, layers=2, learning_rate=1e-3), "newest")
    assert recipe.load(second.recipe).train.layers == (1 if method == "layers" else 2)
    assert isinstance(train(second)[-1], Finished)
    one, two = (view(job).result for job in (first, second))
    assert two["heldout_start"] == pytest.approx(one["heldout_after"], abs=1e-5)
    assert two["heldout_before"] == pytest.approx(one["heldout_before"], abs=1e-5)
    assert two["heldout_after"] < two["heldout_start"]


def test_what_is_exported_is_base_and_all_that_was_trained(before: Job, tiny_model: Path, tmp_path: Path) -> None:
    job = job_of(before.project, tiny_model, SFT, "newest")
    train(job)
    trained = Trained.of(job, lambda share, what: None)
    for _ in merge(trained, tmp_path / "merged"):
        pass
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), job.adapter
    )
    ids = torch.arange(40, 60)[None]
    assert torch.allclose(merged(ids).logits, tuned(ids).logits, atol=0.05)
    assert f"| trained further from | the run {before.id} |" in card.adapter(trained, "lamps")
    config = json.loads((job.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_model.name and (config["r"], config["lora_alpha"]) == (4, 8)


def test_a_folder_of_pefts_files_beside_the_recipe(workspace: Workspace, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "tiny-llama")
    make_adapter(tmp_path / "tiny-llama", tmp_path / "theirs", std=0.02, r=3, lora_alpha=5)
    project = lighthouse(workspace)
    job = job_of(project, tmp_path / "tiny-llama", SFT, "theirs")
    shutil.rmtree(tmp_path / "theirs")
    frozen = recipe.load(job.recipe)
    assert (frozen.train.rank, frozen.train.alpha) == (3, 5)
    assert isinstance(train(job)[-1], Finished)
    again = recipe.rebase(frozen, job.path, project.path)  # "use this run's recipe"
    assert again.model.adapter == f"jobs/{job.id}/{further.FOLDER}"
    settled, origin = further.planned(project, again, project.path)
    assert settled == again and origin.name == "theirs"


def refused(project: Project, base: Path, settings: TrainRecipe, adapter: str) -> FTError:
    here = len(project.jobs())
    with pytest.raises(FTError) as error:
        job_of(project, base, settings, adapter)
    assert len(project.jobs()) == here and "\n" not in error.value.message
    return error.value


def test_another_base_is_one_sentence_by_name_revision_and_shape(
    before: Job, tiny_model: Path, builtin: Path, tmp_path: Path
) -> None:
    project = before.project
    shutil.copytree(tiny_model, tmp_path / "other")
    said = refused(project, tmp_path / "other", SFT, "newest")
    assert "was trained on tiny-llama, and the base model of this recipe is other" in said.message

    (tmp_path / "tiny-llama").mkdir()  # of that name, and another model
    for file in builtin.iterdir():
        (tmp_path / "tiny-llama" / file.name).symlink_to(file)
    said = refused(project, tmp_path / "tiny-llama", SFT, before.id)
    assert re.search(r"another base model: model\.layers\.\S+ is \d+ here and \d+ there$", said.message)

    wanted = Recipe(model=ModelRecipe("tiny-llama", revision="v2", adapter="newest"), train=SFT)
    with pytest.raises(FTError, match="was trained on the revision main of tiny-llama, and this recipe's is v2"):
        start.create(project, wanted, tiny_model.parent)


def test_a_base_whose_files_were_not_here_is_checked_when_it_is_loaded(
    sft: Job, builtin: Path, tiny_model: Path
) -> None:
    with pytest.raises(FTError, match=r"another base model: model\.layers\.\S+ is \d+ here and"):
        learning(load_base(builtin, "fp32", CPU), SFT, sft.adapter)


def test_the_same_model_under_another_owner_is_the_same() -> None:
    known = further._known_as
    assert known("unsloth/Llama-3.2-1B-Instruct-bnb-4bit") == known("meta-llama/Llama-3.2-1B-Instruct")
    assert known("unsloth/Qwen3-8B-unsloth-bnb-4bit") == known("Qwen/Qwen3-8B") != known("Qwen/Qwen3-8B-Base")


def test_what_cannot_be_trained_further_says_why(before: Job, tiny_model: Path, tmp_path: Path) -> None:
    project = before.project
    shutil.copytree(tiny_model, tmp_path / "tiny-llama")
    base = tmp_path / "tiny-llama"
    for adapter, words in (("nothing", "there is no run and no folder 'nothing'"), ("../gone", "no folder '../gone'")):
        assert words in refused(project, base, SFT, adapter).message
    said = refused(project, base, replace(SFT, method="full"), "newest")
    assert "is an adapter (lora), and this recipe trains by the method full" in said.message and "lora" in said.hint

    apart = replace(wanted("newest", base), compute=ComputeRecipe(processes=2, strategy="fsdp"))
    with pytest.raises(FTError, match="shared out"):
        start.create(project, apart, base.parent)
    (tmp_path / "empty").mkdir()
    assert "empty holds nothing to train further" in refused(project, base, SFT, "empty").message
    make_adapter(base, tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "adapter_config.json").read_text())
    for change, words in (
        ({"peft_type": "IA3"}, "it is ia3, not LoRA"),
        ({"init_lora_weights": "pissa"}, "it began as pissa, which changes the base's own weights"),
    ):
        (tmp_path / "odd" / "adapter_config.json").write_text(json.dumps(config | change))
        assert words in refused(project, base, SFT, "odd").message
    (tmp_path / "odd" / "adapter_config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "odd" / "adapter_model.safetensors")
    save_file(
        weights | {"base_model.model.lm_head.weight": torch.zeros(2)}, tmp_path / "odd" / "adapter_model.safetensors"
    )
    said = refused(project, base, SFT, "odd").message
    assert "lm_head.weight" in said
    (tmp_path / "odd" / "adapter_model.safetensors").write_bytes(b"half")
    assert "adapter_model.safetensors cannot be read" in refused(project, base, SFT, "odd").message


def test_changed_weights_want_their_own_method(workspace: Workspace, tiny_model: Path) -> None:
    project = lighthouse(workspace)
    train(job_of(project, tiny_model, replace(SFT, method="full", steps=1)))
    said = refused(project, tiny_model, SFT, "newest")
    assert "changed weights of the model itself (full)" in said.message and "5e-05 or lower" in said.hint


def test_a_quantized_base_takes_a_plain_adapter(before: Job, tmp_path: Path, tiny_model: Path) -> None:
    origin = further.planned(before.project, wanted("newest", tiny_model), tiny_model.parent)[1]
    assert further._method("qlora", origin) == "qlora" and further._method("lora", origin) == "lora"
    with pytest.raises(FTError, match="is a dora adapter, and qlora trains plain ones"):
        further._method("qlora", replace(origin, method="dora"))


def wanted(adapter: str, base: Path) -> Recipe:
    return Recipe(DataRecipe(heldout=0.2), model=ModelRecipe(base=base.name, adapter=adapter), train=SFT)


def test_the_preflight_knows_it(before: Job, tiny_model: Path) -> None:
    """Before there is a job: what it goes on from, its size in the estimate, and why it cannot."""
    project = before.project

    def seen(adapter: str, **settings) -> preflight.Preflight:
        asked = recipe.rebase(wanted(adapter, tiny_model), tiny_model.parent, project.path)
        return preflight.preflight(project, replace(asked, train=replace(SFT, **settings)))

    found = seen("newest", rank=64, alpha=64)
    (finding,) = [f for f in found.findings if f.name == "adapter"]
    assert found.ready and "It goes on from the run" in finding.text and "rank 4, alpha 8" in finding.text
    assert found.estimate.checkpoint_bytes == seen("").estimate.checkpoint_bytes
    assert not seen("nothing").ready
