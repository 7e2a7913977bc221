"""The Compare tab in a conversation: what is asked, cleared and asked again, by a model that answers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
from ft_core.events import EventWriter, Finished
from ft_core.workspace import Workspace
from tests.core.adapters import make_adapter, trained_job

from .conftest import App, Tab


@pytest.fixture
def page(app: App, tab: Callable[..., Tab], tiny_model: Path, tmp_path: Path) -> Iterator[Page]:
    """The tab of a project whose run is an adapter of random weights, asked for answers that are long."""
    job = trained_job(Workspace(app.home), tiny_model, make_adapter(tiny_model, tmp_path / "adapter"))
    writer = EventWriter(job.events)
    writer.write(Finished({"base": str(tiny_model), "adapter": str(job.adapter), "steps": 9, "kept_step": 9,
                           "heldout_before": None, "heldout_after": None}))  # fmt: skip
    writer.close()
    with Store(job.project.data) as store:
        store.add([Conversation((Message("user", "Who are you?"), Message("assistant", "The help desk.")))])
    page = tab().open(app.url.replace("Roastery+help+desk", job.project.name))
    page.click("#tab-compare-button")
    page.click("text=System prompt and sampling")
    page.fill("#knob-max_tokens input", "450")
    page.fill("#knob-temperature input", "1.5")
    yield page
    job.project.remove()


def under_way(page: Page, question: str) -> None:
    page.fill("#ask textarea", question)
    page.click("#send")
    page.wait_for_function("document.querySelector('[data-side=before] p')?.innerText.length > 20", timeout=120_000)


def answered(page: Page, questions: list[str]) -> None:
    """Both sides of these and of no others."""
    expect(page.locator("[data-side=after][data-done=true]")).to_have_count(len(questions), timeout=180_000)
    expect(page.locator("#send")).to_be_visible()
    asked = page.locator(".ft-asked").all_inner_texts()
    assert [text.removeprefix("Asked:").strip() for text in asked] == questions


def test_clear_ends_the_answer_under_way_for_good(page: Page) -> None:
    under_way(page, "Tell me everything.")
    page.click("#clear")
    expect(page.locator(".ft-asked")).to_have_count(0)
    expect(page.locator("#send")).to_be_visible()
    page.fill("#knob-max_tokens input", "4")
    page.fill("#ask textarea", "And now?")
    page.click("#send")
    answered(page, ["And now?"])
