"""A training as HTML, from events."""

from __future__ import annotations

from ft_core.events import (
    Failed,
    Finished,
    JobView,
    Metric,
    Note,
    Progress,
    Queued,
    Sample,
    Started,
    fold,
)
from ui import run_view
from ui.chart import curves, thinned

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


def test_chart_gets_both_curves_and_words() -> None:
    shown = curves(fold(EVENTS))
    assert len(shown["train"]) == 31
    assert shown["heldout"] == [(0, 3.62), (30, 2.67)]
    assert shown["total"] == 60
    assert "held out 2.67, 3.62 before" in shown["label"]
    assert curves(JobView())["train"] == []


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    points = [(i, float(i)) for i in range(1, 50_001)]
    thin = thinned(points)
    assert len(thin) <= 402
    assert thin[-1] == points[-1]
    assert [s for s, _ in thin] == sorted({s for s, _ in thin})
    assert thinned(points[:10]) == points[:10]
