"""Before and after of every method that trains: side by side, proven, and measured as the training measured itself."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core import jobs
from ft_core.compare import apart, heldout
from ft_core.compare.engine import Engine
from ft_core.conversation import Message
from ft_core.errors import FTError
from ft_core.recipe import CompareRecipe
from ft_core.workspace import Job, Workspace

from .trainings import METHODS, lighthouse, talkative, trained

GREEDY = CompareRecipe(max_tokens=12, temperature=0.0)
SHORT = (Message("user", "What does lamp 3 show?"),)
LONG = (
    Message("system", "You are the help desk of a lighthouse."),
    Message("user", "And what do you know of lamp 7?"),
)


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tiny_model, tmp_path_factory.mktemp("bases") / "talkative")


@pytest.fixture(scope="module", params=METHODS)
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, base: Path) -> Job:
    project = lighthouse(Workspace.at(tmp_path_factory.mktemp(request.param)))
    # One layer of two has to learn harder than the others, to say something else.
    return trained(project, base, request.param, **({"learning_rate": 1e-2} if request.param == "layers" else {}))


@pytest.fixture(scope="module")
def engine(job: Job) -> Engine:
    return Engine.of(job, "fp32")


def plain(job: Job, base: Path, tuned: bool) -> PreTrainedModel:
    """The sides by transformers and PEFT alone."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if tuned and (job.adapter / "adapter_model.safetensors").exists():
        return PeftModel.from_pretrained(model, job.adapter).eval()
    if tuned:
        changed = load_file(job.adapter / "trained.safetensors")
        assert not model.load_state_dict(changed, strict=False).unexpected_keys
    return model.eval()


def greedy(model: PreTrainedModel, engine: Engine, messages: tuple[Message, ...]) -> str:
    ids = torch.tensor([engine.renderer.prompt(messages)])
    settings = {"max_new_tokens": GREEDY.max_tokens, "do_sample": False, "eos_token_id": list(engine.stops)}
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    return engine.renderer.tokenizer.decode(out[0, ids.shape[1] :].tolist(), skip_special_tokens=True)


def answers(engine: Engine, chats: dict, sampling: CompareRecipe = GREEDY) -> dict[str, str]:
    return {delta.side: delta.text for delta in engine.stream(chats, sampling)}


@pytest.mark.parametrize(("before", "after"), [(SHORT, SHORT), (SHORT, LONG)], ids=["same", "different"])
def test_each_side_says_what_plain_transformers_says(job, engine, base, before, after) -> None:
    both = answers(engine, {"before": before, "after": after})
    assert both["before"] == greedy(plain(job, base, False), engine, before)
    assert both["after"] == greedy(plain(job, base, True), engine, after)
    assert both["before"] != both["after"]
    assert answers(engine, {"after": after}) == {"after": both["after"]}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_before_is_before(job: Job, precision: str) -> None:
    engine = Engine.of(job, precision)
    proof = engine.proof()
    assert proof.max_logit_difference == 0.0 and proof.after_difference > 0.05
    with torch.no_grad():
        engine.model.model.norm.weight[3] += 0.01
    assert engine.proof().max_logit_difference > 0  # so it can fail


def test_both_sides_come_side_by_side_and_stop_together(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ft_core.compare.engine.SAY_EVERY_S", 0.0)
    stop, deltas = threading.Event(), []
    for delta in engine.stream({"before": SHORT, "after": LONG}, CompareRecipe(max_tokens=60), stop):
        deltas.append(delta)
        if len(deltas) == 6:
            stop.set()
    assert [d.side for d in deltas[:4]] == ["before", "after"] * 2
    assert [d.done for d in deltas[-2:]] == [True, True] and deltas[-1].tokens < 10


def test_a_side_that_ends_early_leaves_the_other_alone(engine: Engine) -> None:
    whole = answers(engine, {"before": SHORT, "after": LONG})
    for side, other in (("before", "after"), ("after", "before")):
        ids = {s: engine.renderer.ids(whole[s]) for s in whole}
        at, stop = next(((i, t) for i, t in enumerate(ids[side]) if t not in ids[side][:i] + ids[other]), (0, None))
        if stop is None:
            continue
        said = answers(Engine(**{**vars(engine), "stops": frozenset({stop})}), {"before": SHORT, "after": LONG})
        assert said[other] == whole[other] and whole[side].startswith(said[side]) and said[side] != whole[side]


def test_equal_logits_draw_equal_tokens(engine: Engine) -> None:
    """The noise of a step is the same for both sides, in one batch or in two."""
    sampled = CompareRecipe(max_tokens=12, temperature=1.0, seed=3)
    both = answers(engine, {"before": SHORT, "after": SHORT}, sampled)
    assert both == {side: answers(engine, {side: SHORT}, sampled)[side] for side in ("before", "after")}


def test_held_out_losses_are_the_trainings_own(job: Job) -> None:
    result = jobs.view(job).result
    found = heldout.evaluate(job)
    assert found.before == pytest.approx(result["heldout_before"], abs=1e-6)
    assert found.after == pytest.approx(result["heldout_after"], abs=1e-6)
    assert found.interval[0] < found.difference < found.interval[1] < 0


def test_what_did_not_change_is_in_memory_once(job: Job, base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    own = apart.tuned(model, job.adapter)
    there = {p.data_ptr() for p in model.parameters()}
    shared = [name for name, p in own.named_parameters() if p.data_ptr() in there]
    (file,) = job.adapter.glob("*.safetensors")
    changed = {name for name in load_file(file) if "lora_" not in name}
    assert len(shared) == len(list(model.parameters())) - len(changed)
    assert own.get_input_embeddings().weight is own.get_output_embeddings().weight  # tied, as before


# --- changed weights that do not fit --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    return trained(lighthouse(Workspace.at(tmp_path_factory.mktemp("fit"))), base, "layers", steps=1).adapter


def test_what_does_not_fit_the_base_is_one_sentence(changed: Path, base: Path, tmp_path: Path) -> None:
    def refused(tensors: dict[str, torch.Tensor]) -> str:
        copy = shutil.copytree(changed, tmp_path / "copy", dirs_exist_ok=True)
        save_file(tensors, copy / "trained.safetensors")
        with pytest.raises(FTError) as error:
            Engine.load(base, copy, "fp32")
        assert error.value.hint and "\n" not in error.value.message
        return error.value.message

    right = load_file(changed / "trained.safetensors")
    assert "no weight model.layers.9." in refused({k.replace("layers.1.", "layers.9."): t for k, t in right.items()})
    assert "model.norm.weight is 64 here and 9 in what" in refused({**right, "model.norm.weight": torch.ones(9)})


def test_weights_cut_short_are_one_sentence(changed: Path, base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(changed, tmp_path / "copy")
    (copy / "trained.safetensors").write_bytes((changed / "trained.safetensors").read_bytes()[:5000])
    with pytest.raises(FTError, match="cannot be read"):
        Engine.load(base, copy, "fp32")
