"""Held-out losses against plain transformers and PEFT, and their interval against a slow plain computation."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ft_core import jobs, recipe
from ft_core.compare import heldout, start
from ft_core.conversation import Conversation, Message
from ft_core.data.freeze import freeze
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import Finished, Progress, State, Stopped
from ft_core.recipe import DataRecipe
from ft_core.workspace import Job, Workspace

from .adapters import make_adapter, trained_job


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tiny_model, tmp_path_factory.mktemp("adapters") / "adapter")


def with_rows(job: Job, share: float = 0.5) -> Job:
    rows = [
        Conversation((Message("user", f"What is {n}?"), Message("assistant", f"It is {'very ' * n}blue, all {n}.")))
        for n in range(12)
    ]
    with Store(job.project.data) as store:
        store.add(rows)
        freeze(store, job, DataRecipe(heldout=share))
    return job


@pytest.fixture
def job(workspace: Workspace, tiny_model: Path, adapter: Path) -> Job:
    return with_rows(trained_job(workspace, tiny_model, adapter, "bf16"))


def plain_nats(model: torch.nn.Module, base: Path, conversation: Conversation) -> tuple[float, int]:
    """The loss of the answer, its end-of-turn token included, by transformers' own labels argument."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    turns = [m.to_dict() for m in conversation.messages]
    whole = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
    prompt = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
    labels = whole.clone()
    labels[:, : len(prompt)] = -100
    with torch.no_grad():
        loss = model(input_ids=whole, labels=labels).loss.item()
    tokens = int((labels[:, 1:] != -100).sum())
    return loss * tokens, tokens


def test_losses_are_those_of_plain_transformers_and_peft(job: Job, tiny_model: Path, adapter: Path) -> None:
    found = heldout.evaluate(job)
    assert len(found.rows) == 6
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    rows = {r.id: r.conversation for r in heldout.read_frozen(job.dataset) if r.split == "heldout"}
    before = {id: plain_nats(base, tiny_model, conversation) for id, conversation in rows.items()}
    tuned = PeftModel.from_pretrained(base, adapter).eval()
    after = {id: plain_nats(tuned, tiny_model, conversation) for id, conversation in rows.items()}
    for row in found.rows:
        assert row.tokens == before[row.id][1]
        assert row.before == pytest.approx(before[row.id][0], abs=1e-3)
        assert row.after == pytest.approx(after[row.id][0], abs=1e-3)
    tokens = sum(n for _, n in before.values())
    assert found.tokens == tokens
    assert found.before == pytest.approx(sum(x for x, _ in before.values()) / tokens, abs=1e-5)
    assert found.after == pytest.approx(sum(x for x, _ in after.values()) / tokens, abs=1e-5)
    assert found.difference == pytest.approx(found.after - found.before)
    assert found.interval[0] < found.difference < found.interval[1]
    assert abs(found.difference) > 0.1


def test_the_interval_against_a_slow_plain_bootstrap() -> None:
    """Row after row drawn in Python, from rows of very different lengths; within the noise of 10,000 draws."""
    dice = random.Random(5)
    rows = [(dice.gauss(3.0, 0.4), dice.gauss(-0.6, 0.5), dice.randint(1, 90)) for _ in range(40)]
    tokens = np.array([n for _, _, n in rows])
    before = np.array([loss * n for loss, _, n in rows])
    after = np.array([(loss + change) * n for loss, change, n in rows])
    figures = []
    for _ in range(10_000):
        drawn = dice.choices(range(40), k=40)
        nats = sum(after[i] - before[i] for i in drawn)
        figures.append(nats / sum(tokens[i] for i in drawn))
    figures.sort()
    low, high = heldout.bootstrap(before, after, tokens)
    assert low == pytest.approx(figures[249], abs=0.015) and high == pytest.approx(figures[9749], abs=0.015)
    assert heldout.bootstrap(before, after, tokens) == (low, high)


def test_the_interval_knows_that_it_is_the_same_rows() -> None:
    """Rows of very different difficulty, each a little easier afterwards: the pairing leaves no doubt."""
    before = np.linspace(10, 400, 30)
    low, high = heldout.bootstrap(before, before - 5.0, np.full(30, 10))
    assert low == pytest.approx(-0.5) and high == pytest.approx(-0.5)


def test_a_row_without_learnt_tokens_says_nothing() -> None:
    low, high = heldout.bootstrap(np.array([0.0, 9.0]), np.array([0.0, 6.0]), np.array([0, 3]))
    assert low == high == -1.0


def test_as_a_job_of_its_own(job: Job) -> None:
    measured = start.start(job.project, job)
    seen = jobs.wait(measured)
    assert (seen.state, seen.kind, seen.error) == (State.FINISHED, "evaluate", "")
    assert (seen.step, seen.total) == (12, 12)
    assert seen.result == json.loads(heldout.report_path(job).read_text())
    assert seen.result["job"] == job.id and len(seen.result["rows"]) == 6
    assert set(seen.result["rows"][0]) == {"id", "tokens", "before", "after"}


def test_it_stops_between_rows(job: Job) -> None:
    measured = jobs.create(job.project, "evaluate", recipe.load(job.recipe), {"job": job.id})
    events = []
    for event in heldout.run(measured, {}):
        events.append(event)
        if isinstance(event, Progress) and event.step:
            measured.stop.touch()
    assert isinstance(events[-1], Stopped) and events[-1].step == 8
    assert not any(isinstance(e, Finished) for e in events) and not heldout.report_path(job).exists()


def test_what_cannot_be_measured_is_a_sentence(
    workspace: Workspace, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(FTError, match="no row was held out"):
        heldout.evaluate(with_rows(trained_job(workspace, tiny_model, adapter), share=0.0))
    changed = make_adapter(tiny_model, tmp_path / "pissa", init_lora_weights="pissa")
    with pytest.raises(FTError, match="changes the base"):
        heldout.evaluate(with_rows(trained_job(workspace, tiny_model, changed)))
