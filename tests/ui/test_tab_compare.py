"""Which answers of the engine still count, with the real engine behind the tab's own handlers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from ft_core.compare.client import Engines
from ft_core.workspace import Workspace
from tests.core.adapters import make_adapter, trained_job
from ui.frame import Frame, Recipes
from ui.runs import Runs
from ui.session import House
from ui.tab_compare import Answer, CompareTab, Talk

REQUEST = SimpleNamespace(session_hash="mine")


@pytest.fixture
def tab(workspace: Workspace, tiny_model: Path, tmp_path: Path) -> Iterator[CompareTab]:
    trained_job(workspace, tiny_model, make_adapter(tiny_model, tmp_path / "adapter"))
    engines = Engines()
    with gr.Blocks():
        frame = Frame(House(workspace.home, on_space=False), Runs(), gr.Textbox())
        yield CompareTab(frame, Recipes(), engines)
    engines.close()


def given(tab: CompareTab, talk: Talk, asked: str, tokens: int) -> dict:
    sampling = {"max_tokens": tokens, "temperature": 1.5, "top_p": 1.0, "seed": 0}
    knobs = {widget: sampling[name] for name, widget in tab.knobs.items()}
    return {tab.frame.project: "Roastery", tab.run: "", tab.system: "", tab.talks: talk, tab.box: asked, **knobs}


def begun(answers: Iterator[dict], talk: Talk) -> None:
    while not (talk.turns and talk.turns[-1].after.text):
        next(answers)


def test_what_was_cleared_or_asked_over_comes_no_more(tab: CompareTab) -> None:
    talk = Talk()
    cleared = tab.ask(given(tab, talk, "one", 400), REQUEST)
    begun(cleared, talk)
    tab.empty("Roastery", talk, REQUEST)
    assert talk.turns == ()
    assert list(cleared) == [] and talk.turns == ()

    over = tab.ask(given(tab, talk, "two", 400), REQUEST)
    begun(over, talk)
    newest = tab.retry(given(tab, talk, "", 4), REQUEST)
    next(newest)
    assert talk.turns[0].after == Answer()
    assert list(over) == []
    assert [len(list(newest)) > 0, len(talk.turns), talk.turns[0].after.tokens] == [True, 1, 4]


def test_what_was_stopped_stays(tab: CompareTab) -> None:
    talk = Talk()
    stopped = tab.ask(given(tab, talk, "one", 400), REQUEST)
    begun(stopped, talk)
    tab.cancel(REQUEST)
    assert list(stopped)
    assert 0 < talk.turns[0].after.tokens < 400
