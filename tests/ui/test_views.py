"""The state line: facts in, steps and the next one out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ft_core.events import Failed, Finished, JobView, Progress, Queued, Started, State, fold
from ui import views
from ui.views import Facts

RUNNING = fold([Queued("train"), Started(60), Progress(31, 60, 62.0, "training")])
FAILED = fold([Queued("train"), Started(60), Failed("no memory", "Lower micro_batch.")])
TRAINED = fold([Queued("train"), Finished({"adapter": "adapter", "heldout_before": 3.62, "heldout_after": 2.50})])
EXPORTED = fold([Queued("export"), Finished({"files": ["a.gguf"], "verified": True})])


def line(facts: Facts) -> str:
    marks = {"done": " ✓", "doing": " …", "open": "", "wrong": " ✕"}
    return " › ".join(f"{s.text}{marks[s.mark]}{' ' + s.note if s.note else ''}" for s in views.steps(facts))


@pytest.mark.parametrize(
    ("facts", "says", "next_", "opens"),
    [
        (Facts(), "no rows yet", "add rows", "data"),
        (Facts(rows=80), "80 rows ✓ › checked ✓ › not trained", "train", "train"),
        (
            Facts(rows=1, blocking=("1 row has no answer",)),
            "1 row ✓ › not ready to train ✕ 1 row has no answer",
            "look at the rows",
            "data",
        ),
        (
            Facts(rows=80, training=RUNNING),
            "80 rows ✓ › checked ✓ › training … step 31 of 60",
            "watch it learn",
            "train",
        ),
        (Facts(rows=80, training=FAILED), "80 rows ✓ › checked ✓ › training failed ✕", "train", "train"),
        (
            Facts(rows=80, training=replace(RUNNING, state=State.INTERRUPTED)),
            "80 rows ✓ › checked ✓ › training interrupted ✕",
            "train",
            "train",
        ),
        (
            Facts(rows=80, training=TRAINED, trained=TRAINED),
            "80 rows ✓ › checked ✓ › trained ✓ held-out loss −31 % › not compared › not exported",
            "compare",
            "compare",
        ),
        (
            Facts(rows=80, training=RUNNING, trained=TRAINED, compared=True),
            "80 rows ✓ › checked ✓ › training … step 31 of 60 › compared ✓ › not exported",
            None,
            "train",
        ),
        (
            Facts(rows=80, training=TRAINED, trained=TRAINED, compared=True, exported=EXPORTED),
            "80 rows ✓ › checked ✓ › trained ✓ held-out loss −31 % › compared ✓ › exported ✓ verified",
            None,
            "compare",
        ),
    ],
)
def test_state_line(facts: Facts, says: str, next_: str | None, opens: str) -> None:
    assert line(facts) == says
    step = views.next_step(facts)
    assert (step.text if step else None) == next_
    assert views.opens_on(facts) == opens


def test_header_escapes_names() -> None:
    name = '<img src=x onerror="alert(1)">'
    html = views.header(name, [name], "2 cores", Facts(rows=80), first="")
    assert "<img" not in html
    assert "&lt;img" in html
    assert 'data-tab="train"' in html


def test_first_start_says_what_it_is() -> None:
    html = views.header("Roastery help desk", ["Roastery help desk"], "2 cores", Facts(rows=80), first="3 min")
    assert "about 3 min" in html
    assert "Start my own" in html


def test_no_change_without_heldout_rows() -> None:
    assert views.heldout_change(JobView(result={"heldout_before": None, "heldout_after": None})) == ""
