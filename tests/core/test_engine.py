"""Both sides in one batch, against plain transformers and PEFT doing one after the other."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ft_core import jobs
from ft_core.compare.engine import Engine, ask_once, base_fingerprint
from ft_core.compare.exchange import Delta
from ft_core.conversation import Message
from ft_core.errors import FTError
from ft_core.recipe import CompareRecipe, Recipe
from ft_core.workspace import Workspace

from .adapters import make_adapter, trained_job
from .trainings import talkative

GREEDY = CompareRecipe(max_tokens=24, temperature=0.0)
SAMPLED = CompareRecipe(max_tokens=24, temperature=1.0, top_p=0.95, seed=3)
SHORT = (Message("user", "Do you ship to Norway?"),)
LONG = (
    Message("system", "You are the help desk of a roastery."),
    Message("user", "Is the decaf sour?"),
    Message("assistant", "No, it is mild."),
    Message("user", "And how long does a parcel take to Bergen, all in all, with the ferry?"),
)


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tiny_model, tmp_path_factory.mktemp("bases") / "talkative")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(base, tmp_path_factory.mktemp("adapters") / "adapter")


@pytest.fixture(scope="module")
def engine(base: Path, adapter: Path) -> Engine:
    return Engine.load(base, adapter, "fp32")


def ask(engine: Engine, chats: dict, sampling: CompareRecipe = GREEDY, stop: threading.Event | None = None) -> dict:
    """The last delta of each side."""
    return {delta.side: delta for delta in engine.stream(chats, sampling, stop)}


def texts(answers: dict[str, Delta]) -> dict[str, str]:
    return {side: delta.text for side, delta in answers.items()}


def plain(base: Path, adapter: Path | None, messages: tuple[Message, ...]) -> str:
    """What transformers' own generate answers, with its own template and tokenizer."""
    return AutoTokenizer.from_pretrained(base).decode(plain_ids(base, adapter, messages), skip_special_tokens=True)


def plain_ids(base: Path, adapter: Path | None, messages: tuple[Message, ...]) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    ids = tokenizer.apply_chat_template(
        [m.to_dict() for m in messages], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.eval().generate(**ids, max_new_tokens=GREEDY.max_tokens, do_sample=False)
    return out[0, ids["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("chats", [(SHORT, SHORT), (SHORT, LONG), (LONG, SHORT)], ids=["same", "longer", "shorter"])
def test_each_side_answers_as_it_would_alone(engine: Engine, base: Path, adapter: Path, chats: tuple) -> None:
    both = texts(ask(engine, {"before": chats[0], "after": chats[1]}))
    assert both["before"] == plain(base, None, chats[0])
    assert both["after"] == plain(base, adapter, chats[1])
    assert both["before"] != both["after"] and len(set(both["before"].split())) > 3
    assert texts(ask(engine, {"before": chats[0]})) == {"before": both["before"]}
    assert texts(ask(engine, {"after": chats[1]})) == {"after": both["after"]}


def test_a_side_that_ends_early_leaves_the_other_alone(engine: Engine, base: Path, adapter: Path) -> None:
    said = {"before": plain_ids(base, None, SHORT), "after": plain_ids(base, adapter, LONG)}
    for side, other in (("before", "after"), ("after", "before")):
        at, stop = next((i, t) for i, t in enumerate(said[side]) if i and t not in said[side][:i] + said[other])
        early = Engine(**{**vars(engine), "stops": frozenset({stop})})
        answers = ask(early, {"before": SHORT, "after": LONG})
        decode = engine.renderer.tokenizer.decode
        assert (answers[side].tokens, answers[side].text) == (at, decode(said[side][:at]))
        assert (answers[other].tokens, answers[other].text) == (GREEDY.max_tokens, decode(said[other]))


def test_the_same_seed_gives_the_same_answers_and_another_one_does_not(engine: Engine) -> None:
    chats = {"before": SHORT, "after": LONG}
    once, again = texts(ask(engine, chats, SAMPLED)), texts(ask(engine, chats, SAMPLED))
    assert once == again
    assert texts(ask(engine, {"after": LONG}, SAMPLED))["after"] == once["after"]
    other = CompareRecipe(**{**vars(SAMPLED), "seed": 4})
    assert texts(ask(engine, chats, other)) != once


def test_sides_that_think_alike_draw_alike(base: Path, tmp_path: Path) -> None:
    """With an adapter that does nothing the sides differ by nothing but their noise, if that differed."""
    engine = Engine.load(base, make_adapter(base, tmp_path / "adapter", std=0.0), "fp32")
    answers = texts(ask(engine, {"before": SHORT, "after": SHORT}, SAMPLED))
    assert answers["before"] == answers["after"] != texts(ask(engine, {"before": SHORT}))["before"]
    assert engine.proof().after_difference < 1e-5  # another row of the batch may round in another order


def test_sampling_follows_the_probabilities() -> None:
    """10,000 draws against the softmax itself, within four standard errors; top_p cuts the tail."""
    from ft_core.compare.engine import _pick

    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    noise = torch.Generator().manual_seed(0)

    def shares(top_p: float) -> torch.Tensor:
        sampling = CompareRecipe(temperature=2.0, top_p=top_p)
        drawn = torch.cat([_pick(logits, sampling, noise) for _ in range(10_000)])
        return drawn.bincount(minlength=4) / len(drawn)

    wanted = (logits[0] / 2.0).softmax(-1)  # 0.46 0.28 0.17 0.10
    assert torch.allclose(shares(1.0), wanted, atol=0.02)
    first_two = torch.tensor([wanted[0], wanted[1], 0, 0]) / wanted[:2].sum()
    assert torch.allclose(shares(0.6), first_two, atol=0.02)


def test_answers_stream_and_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ft_core.compare.engine.SAY_EVERY_S", 0.0)
    deltas = list(engine.stream({"before": SHORT, "after": SHORT}, GREEDY))
    for side in ("before", "after"):
        said = [d for d in deltas if d.side == side]
        assert [d.done for d in said] == [False] * (len(said) - 1) + [True]
        assert [d.tokens for d in said] == sorted(d.tokens for d in said) and said[-1].tokens == 24
        assert all(later.text.startswith(earlier.text) for earlier, later in zip(said, said[1:]))
        assert said[-1].tokens_per_s > 0
    assert {d.side for d in deltas[:2]} == {"before", "after"}  # side by side, not one after the other


def test_half_a_character_is_held_back(engine: Engine) -> None:
    from ft_core.compare.engine import _Answer

    text = "Fjord ☕ 🫖 ist größer"
    answer = _Answer("after", engine.renderer)
    seen = []
    for token in engine.renderer.ids(text):
        answer.take(token)
        seen.append(answer.so_far(False).text)
    assert len(seen) > len(text.split()) and not any("\ufffd" in s for s in seen)
    assert all(text.startswith(s) for s in seen) and seen[-1] == text


def test_cancel_between_tokens(engine: Engine) -> None:
    stop = threading.Event()
    deltas = []
    for delta in engine.stream({"before": SHORT, "after": SHORT}, CompareRecipe(max_tokens=400), stop):
        deltas.append(delta)
        stop.set()
    last = {d.side: d for d in deltas}
    assert last["before"].done and last["after"].done
    assert last["before"].tokens <= 2 and last["after"].tokens <= 2


def test_the_turns_must_leave_room_for_an_answer(engine: Engine) -> None:
    with pytest.raises(FTError, match="512"):
        ask(engine, {"before": (Message("user", "word " * 600),)})
    prompt = (Message("user", "word " * 450),)
    room = 512 - len(engine.renderer.prompt(prompt))
    assert 0 < ask(engine, {"before": prompt}, CompareRecipe(max_tokens=400))["before"].tokens <= room < 400


def test_the_end_of_turn_stops(engine: Engine) -> None:
    assert engine.stops == {engine.renderer.tokenizer.token_to_id("<|im_end|>")}


# --- before is before -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_before_is_before(base: Path, adapter: Path, precision: str) -> None:
    proof = Engine.load(base, adapter, precision).proof()
    assert proof.max_logit_difference == 0.0
    assert proof.after_difference > 0.1
    assert proof.precision == precision


def test_the_proof_can_fail(base: Path, adapter: Path) -> None:
    engine = Engine.load(base, adapter, "fp32")
    with torch.no_grad():
        engine.model.model.layers[1].mlp.down_proj.base.weight[3, 5] += 1e-3
    assert engine.proof().max_logit_difference > 0


def test_the_fingerprint_is_what_a_shell_would_say(tmp_path: Path, base: Path) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"second")
    (tmp_path / "a.safetensors").write_bytes(b"first")
    (tmp_path / "config.json").write_bytes(b"{}")
    assert base_fingerprint(tmp_path) == hashlib.sha256(b"firstsecond").hexdigest()
    (weights,) = base.glob("*.safetensors")
    assert base_fingerprint(base) == hashlib.sha256(weights.read_bytes()).hexdigest()


# --- adapters that do not fit ---------------------------------------------------------------------------------------


def refused(base: Path, adapter: Path) -> str:
    with pytest.raises(FTError) as error:
        Engine.load(base, adapter, "fp32")
    assert error.value.hint and "\n" not in error.value.message
    return error.value.message


def test_an_adapter_for_another_base_is_one_sentence(base: Path, adapter: Path, tmp_path: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    copy = tmp_path / "adapter"
    copy.mkdir()
    (copy / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    save_file({k: torch.zeros(v.shape[0], 9) if "lora_A" in k else v for k, v in weights.items()}, copy / FILE)
    assert "another base model: model.layers.0.mlp.down_proj is 128 wide here and 9" in refused(base, copy)
    save_file({k.replace("layers.1", "layers.30"): v for k, v in weights.items()}, copy / FILE)
    assert "there is no layer model.layers.30" in refused(base, copy)


def test_an_adapter_that_is_gone_or_cut_short(base: Path, adapter: Path, tmp_path: Path) -> None:
    assert "no adapter" in refused(base, tmp_path)
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    (tmp_path / FILE).write_bytes((adapter / FILE).read_bytes()[:5000])
    assert "cannot be read" in refused(base, tmp_path)
    assert "base model is gone" in refused(tmp_path / "nowhere", adapter)


def test_adapters_that_change_the_base_are_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    assert "pissa" in refused(base, make_adapter(base, tmp_path / "p", init_lora_weights="pissa"))
    whole = make_adapter(base, tmp_path / "whole", modules_to_save=["lm_head"], target_modules=["q_proj"])
    assert "lm_head" in refused(base, whole)


def test_scaling_by_the_root_of_the_rank(base: Path, tmp_path: Path) -> None:
    """A setting of PEFT's that our own product must not overlook; ranks may differ by layer, too."""
    settings = {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 5}}
    adapter = make_adapter(base, tmp_path / "adapter", **settings)
    assert json.loads((adapter / "adapter_config.json").read_text())["use_rslora"]
    engine = Engine.load(base, adapter, "fp32")
    assert texts(ask(engine, {"before": SHORT, "after": SHORT}))["after"] == plain(base, adapter, SHORT)


FILE = "adapter_model.safetensors"


def test_a_training_job_names_its_parts(workspace: Workspace, base: Path, adapter: Path) -> None:
    job = trained_job(workspace, base, adapter, "bf16")
    answers, proof = ask_once(job, "Do you ship?", "You are a roastery.", ("after", "before"), GREEDY, "fp32")
    turns = (Message("system", "You are a roastery."), Message("user", "Do you ship?"))
    assert answers == {"after": plain(base, adapter, turns), "before": plain(base, None, turns)}
    assert (proof.max_logit_difference, proof.precision) == (0.0, "fp32")
    assert Engine.of(job).precision == "bf16"
    untrained = jobs.create(job.project, "train", Recipe())
    with pytest.raises(FTError, match="no trained model"):
        Engine.of(untrained)
