"""A training as HTML, from events."""

from __future__ import annotations

import csv
import io

from ft_core.events import (
    Failed,
    Finished,
    Metric,
    Note,
    Progress,
    Queued,
    Sample,
    Started,
    Stopped,
    fold,
)
from ft_core.workspace import Job
from ui import chart, run_view
from ui.chart import Curves, Shown, thinned

EVENTS = [
    Queued("train", at=1_000.0),
    Started(60),
    Metric(0, {"heldout_loss": 3.62}),
    Sample(0, "Who are you?", "I am SmolLM."),
    *[Metric(i, {"loss": 3.6 - i / 40, "tokens_per_s": 400.0 + i, "memory_bytes": 2.1 * 2**30}) for i in range(1, 32)],
    Metric(30, {"heldout_loss": 2.67}),
    Sample(30, "Who are you?", "Fjord's help desk. <b>What</b> would you like?"),
    Progress(31, 60, 62.0, "training"),
]


def test_running() -> None:
    view = fold(EVENTS)
    html = run_view.run_panel(view)
    assert "step 31 of 60 · 1 min left" in html
    assert 'aria-valuenow="31"' in html
    figures = [(f.text, f.what) for f in run_view.figures(view)]
    assert figures == [
        ("2.67", "held-out loss, before 3.62 (−26 %)"),
        ("431 tokens/s", "learnt from"),
        ("2.1 GB", "memory at most"),
    ]


def test_answers_before_and_now_are_text() -> None:
    html = run_view.samples_panel(fold(EVENTS))
    assert "I am SmolLM." in html
    assert "&lt;b&gt;What&lt;/b&gt;" in html


def test_failed_says_what_and_what_to_do() -> None:
    html = run_view.run_panel(fold([*EVENTS, Failed("Memory ran out at step 31.", "Lower micro_batch to 4.")]))
    assert "Memory ran out at step 31." in html
    assert "Lower micro_batch to 4." in html
    assert "progressbar" not in html


def test_waiting_says_for_what() -> None:
    html = run_view.run_panel(fold([Queued("train"), Note("Waits for its turn: train 7 has the machine.")]))
    assert "Waits for its turn" in html


def test_finished_goes_by_the_result() -> None:
    result = {"heldout_before": 3.0, "heldout_after": 2.0, "seconds": 118.0, "peak_memory_bytes": 3 * 2**30}
    view = fold([*EVENTS, Finished(result)])
    assert run_view.place(view) == "step 31 of 60 · took 2 min"
    assert run_view.figures(view)[0].what == "held-out loss, before 3.00 (−33 %)"
    assert run_view.figures(view)[-1].text == "3.0 GB"


def test_chart_is_told_who_and_how_far_and_asks_for_the_rest() -> None:
    job, view = Job(None, "3"), fold(EVENTS)
    told = chart.told("p", [Shown(job, "#3", "#3 mine", view)])
    assert told["runs"] == [{"id": "3", "number": "#3", "title": "#3 mine", "stamp": view.updated_at}]
    assert (told["project"], told["total"]) == ("p", 60)
    assert "held out 2.67, 3.62 before" in told["label"]
    assert [name for name, *_ in told["figures"]][:3] == ["loss", "train_loss", "grad_norm"]
    assert "points" not in str(told) and len(str(told)) < 1500
    assert chart.told("", [])["runs"] == []


def test_curves_are_drawn_up_once_for_every_state_of_a_run(workspace) -> None:
    job = workspace.project("p", create=True).new_job()
    view, drawn = fold(EVENTS), Curves()
    found = drawn.of(job, view, "loss")
    assert (len(found["curves"]["loss"]), found["curves"]["heldout_loss"]) == (31, [(0, 3.62), (30, 2.67)])
    assert drawn.of(job, view, "loss")["curves"] is found["curves"]
    later = fold([Metric(32, {"loss": 1.23456789e-7})], view)
    assert drawn.of(job, later, "loss")["curves"]["loss"][-1] == (32, 1.2346e-7)
    assert list(drawn.of(job, view, "tokens_per_s")["curves"]) == ["tokens_per_s"]


def test_a_step_that_was_done_again_stands_in_its_place() -> None:
    view = fold([*EVENTS, Metric(20, {"loss": 9.0}), Metric(32, {"loss": 1.0})])
    steps = [step for step, _ in chart.points(view, "loss")]
    assert steps == [*range(1, 33)]


def test_what_else_a_training_measures_can_be_looked_at() -> None:
    view = fold([*EVENTS, Metric(31, {"rewards/margins": 0.4, "epoch": 1.0})])
    figures = {name: words for name, words, _ in chart.told("p", [Shown(Job(None, "3"), "#3", "#3", view)])["figures"]}
    assert figures["rewards/margins"] == "rewards, margins" and "epoch" not in figures


def test_the_table_has_every_step_of_every_run() -> None:
    runs = [Shown(Job(None, str(n)), f"#{n}", f"#{n} a, b", fold(EVENTS)) for n in (2, 1)]
    rows = list(csv.DictReader(io.StringIO(chart.table(runs))))
    assert len(rows) == 2 * 32
    assert (rows[0]["run"], rows[0]["step"], rows[0]["heldout_loss"], rows[0]["loss"]) == ("#2 a, b", "0", "3.62", "")
    assert rows[30]["heldout_loss"] == "2.67" and rows[30]["loss"] == "2.85"
    assert rows[-1]["run"] == "#1 a, b"


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    points = [(i, float(i)) for i in range(1, 50_001)]
    thin = thinned(points)
    assert len(thin) <= 402
    assert thin[-1] == points[-1]
    assert [s for s, _ in thin] == sorted({s for s, _ in thin})
    assert thinned(points[:10]) == points[:10]


def test_the_list_says_which_step_was_kept() -> None:
    result = {"heldout_before": 3.0, "heldout_after": 2.0, "steps": 60, "kept_step": 40}
    assert run_view.title(fold([*EVENTS, Finished(result)])).endswith("held-out loss −33 % · step 40 of 60 kept")
    assert "kept" not in run_view.title(fold([*EVENTS, Finished({**result, "kept_step": 60})]))
    assert "cancelled" in run_view.title(fold([Queued("train"), Stopped(0)]))
