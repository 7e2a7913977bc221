"""Events on disk, and the picture that they paint."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from ft_core import events
from ft_core.errors import FTError
from ft_core.events import (
    EventWriter,
    Failed,
    Finished,
    JobView,
    Metric,
    Note,
    Progress,
    Queued,
    Sample,
    Started,
    State,
    Stopped,
)

RUN = [
    Queued("train"),
    Started(60),
    Sample(0, "Who?", "I am SmolLM."),
    Metric(1, {"loss": 3.5}),
    Progress(1, 60, 90.0, "training"),
    Metric(1, {"heldout_loss": 3.6}),
    Sample(1, "Who?", "Fjord."),
    Note("one row is cut", "warning"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def written(path: Path, found: list) -> None:
    writer = EventWriter(path)
    for event in found:
        writer.write(event)
    writer.close()


def test_events_come_back_as_they_were(path):
    every = [*RUN, Finished({"steps": 60, "größe": "ü"}), Failed("what\nelse", "hint"), Stopped(3, {"a": None})]
    written(path, every)
    assert events.read(path) == (every, path.stat().st_size)
    assert len(path.read_text().splitlines()) == len(every)
    assert all(abs(e.at - time.time()) < 60 for e in every[len(RUN) :])  # RUN is as old as this module
    assert events.read(path.with_name("none")) == ([], 0)


@pytest.mark.parametrize(
    "value, says", [({"event": "danced"}, "'danced'"), ({"event": "started", "speed": 1}, "speed")]
)
def test_what_is_unknown_is_named(value, says):
    with pytest.raises(FTError, match=says):
        events.from_dict(value)


def test_the_picture_of_a_run():
    view = events.fold(RUN)
    assert (view.kind, view.state, view.step, view.total, view.eta_s) == ("train", State.RUNNING, 1, 60, 90.0)
    assert view.metrics == {1: {"loss": 3.5, "heldout_loss": 3.6}}
    assert [s.answer for s in view.samples] == ["I am SmolLM.", "Fjord."] and view.notes[0].level == "warning"
    assert (view.queued_at, view.updated_at) == (RUN[0].at, RUN[-1].at)
    done = events.fold([Finished({"loss": 1})], view)
    assert (done.state, done.result, done.eta_s, done.metrics) == (State.FINISHED, {"loss": 1}, None, view.metrics)
    assert events.fold([Stopped(7)], view).state.over and events.fold([Failed("m", "h")], view).hint == "h"
    assert not State.RUNNING.over and not State.QUEUED.over and State.INTERRUPTED.over


def test_folding_on_is_folding_at_once():
    for cut in range(len(RUN) + 1):
        assert events.fold(RUN[cut:], events.fold(RUN[:cut])) == events.fold(RUN)
    assert events.fold([]) == JobView() and JobView().metrics == {}


def test_steps_done_again_after_a_resume_replace_the_first():
    first = [Queued("train"), Started(4), *(Metric(i, {"loss": 9.0 - i}) for i in (1, 2, 3)), Sample(2, "Who?", "old")]
    again = [Queued("train"), Started(4), *(Metric(i, {"loss": 5.0 - i}) for i in (3, 4)), Sample(2, "Who?", "new")]
    view = events.fold([*first, Failed("killed", "resume"), *again])
    assert {step: values["loss"] for step, values in view.metrics.items()} == {1: 8.0, 2: 7.0, 3: 2.0, 4: 1.0}
    assert [s.answer for s in view.samples] == ["new"]
    assert (view.state, view.error, view.hint, view.queued_at) == (State.RUNNING, "", "", first[0].at)


def test_half_a_line_is_not_read_and_then_replaced(path):
    written(path, RUN[:2])
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write('{"event": "metric", "step": 1, "ü'.encode()[:-1])
    assert events.read(path) == (RUN[:2], whole)
    written(path, RUN[2:3])
    assert events.read(path, whole)[0] == RUN[2:3]
    path.write_bytes(b'{"event"')
    written(path, RUN[:1])
    assert events.read(path)[0] == RUN[:1]


def test_reading_on_from_an_offset(path):
    offset, seen = 0, []
    for event in RUN:
        written(path, [event])
        found, offset = events.read(path, offset)
        seen += found
    assert seen == RUN and events.read(path, offset) == ([], offset)


def test_following_sees_every_event_to_the_end(path):
    over = threading.Event()

    def write() -> None:
        for event in RUN:
            written(path, [event])
            time.sleep(0.01)
        over.set()

    writing = threading.Thread(target=write)
    writing.start()
    assert list(events.follow(path, over.is_set, poll_s=0.01)) == RUN
    writing.join()


def test_ten_thousand_metrics_are_folded_at_once(path):
    many = [Metric(i, {"loss": 1.0}) for i in range(10_000)]
    start = time.perf_counter()
    assert len(events.fold(many).metrics) == 10_000
    assert time.perf_counter() - start < 5  # quadratic would take a minute


def test_lines_are_plain_json(path):
    written(path, RUN[:1])
    assert json.loads(path.read_text()) == {"event": "queued", "kind": "train", "at": RUN[0].at}


@pytest.mark.parametrize("length", [1, 5_000, 100_000])
def test_the_last_whole_event_is_found_whatever_its_length(tmp_path: Path, length: int):
    path = tmp_path / "events.jsonl"
    assert events.last(path) is None
    path.touch()
    assert events.last(path) is None
    writer = EventWriter(path)
    writer.write(Note("first"))
    assert events.last(path).text == "first"
    writer.write(Note("é" * length))
    writer.close()
    with path.open("ab") as file:
        file.write(b'{"event": "no')  # half a line, as a kill leaves it
    assert events.last(path).text == "é" * length
