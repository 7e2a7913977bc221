"""The loop as a stranger walks it: open the page, train the example, see both answers. No typing.

One real training of the built-in model serves all of these tests. Under way the page is reloaded, opened in a second
tab, and the app is ended and started again: each of them must show the whole curve.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from ft_core import events
from ft_core.workspace import Workspace

from .conftest import PHONE, SCREENSHOTS, WIDE, App, Tab, save

MINUTES = 60_000
MOST_CLICKS = 5
pytestmark = pytest.mark.timeout(1800)
"""The training takes four minutes where nothing else has the machine, and the first test waits for all of it."""


@dataclass
class Walk:
    """What happened on the way; the app is left with a trained model."""

    app: App
    clicks: int
    seconds: float
    """From the page being up to both answers on the screen."""
    first_word_s: float
    """From the click on Train until the page says that it began."""
    answers: tuple[str, str]
    wrong: list[str]
    curves: dict[str, tuple[int, int]]
    """Points shown and points in the events, by who looked."""


def points(page: Page) -> int:
    return int(page.locator("#chart [data-points]").get_attribute("data-points"))


def written(app: App) -> int:
    """Figures of the curve in the newest training's events."""
    project = Workspace.at(app.home).project("Roastery help desk")
    job = next(j for j in project.jobs() if events.fold(events.read(j.events)[0]).kind == "train")
    metrics = events.fold(events.read(job.events)[0]).metrics.values()
    return sum("loss" in m for m in metrics) + sum("heldout_loss" in m for m in metrics)


def seen_by(app: App, page: Page) -> tuple[int, int]:
    """What a page that was just opened shows of a run under way, against the file as it was before."""
    before = written(app)
    page.wait_for_function(f"+document.querySelector('#chart [data-points]')?.dataset.points >= {before}")
    return points(page), before


@pytest.fixture(scope="package")
def walk(start_app: Callable[..., App], browser: Browser) -> Walk:
    app = start_app("walk")
    clicks, curves = 0, {}

    def click(selector: str) -> None:
        nonlocal clicks
        clicks += 1
        one.page.click(selector)

    one = Tab(browser.new_page(viewport=WIDE))
    one.listen()
    page = one.open(app.url)
    began = time.monotonic()
    page.wait_for_selector(".g-row")
    save(page, "first-start")
    pressed = time.monotonic()
    click("[data-do=train-example]")
    page.wait_for_selector(".is-busy, #run-state .ft-bar")
    first_word_s = time.monotonic() - pressed
    page.wait_for_selector("#run-state .ft-bar")
    page.wait_for_function(
        "+document.querySelector('#chart [data-last-step]')?.dataset.lastStep >= 3", timeout=5 * MINUTES
    )

    page.reload()
    page.wait_for_selector(".ft-header")
    curves["reload"] = seen_by(app, page)
    second = Tab(browser.new_page(viewport=PHONE))
    second.listen()
    curves["second tab"] = seen_by(app, second.open(app.url))
    app.end()
    app.start()
    third = Tab(browser.new_page(viewport=WIDE))
    third.listen()
    curves["restart"] = seen_by(app, third.open(app.url))
    save(third.page, "training")
    save(second.page, "training-390")
    third.page.close()
    second.page.close()
    page.reload()  # it had lost its app for a moment, and says so in the console
    one.wrong.clear()
    page.wait_for_selector(".ft-header")

    page.wait_for_selector("#run-state [data-state=finished]", timeout=20 * MINUTES)
    save(page, "trained")
    page.wait_for_selector("#next[data-tab=compare]")
    click("#next")
    click("#chips button")
    page.wait_for_selector("[data-side=before][data-done=true]", timeout=5 * MINUTES)
    page.wait_for_selector("[data-side=after][data-done=true]", timeout=5 * MINUTES)
    seconds = time.monotonic() - began
    answers = tuple(page.locator(f"[data-side={side}] p").inner_text() for side in ("before", "after"))
    expect(page.locator(".ft-proof")).to_contain_text("before is before", timeout=3 * MINUTES)
    save(page, "compare")
    wrong = list(one.wrong)
    page.close()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    told = {"clicks": clicks, "seconds": round(seconds, 1), "first_word_s": round(first_word_s, 3)}
    (SCREENSHOTS / "walk.json").write_text(json.dumps(told))
    return Walk(app, clicks, seconds, first_word_s, answers, wrong, curves)


def test_five_clicks_and_no_typing(walk: Walk) -> None:
    """The clock is written to build/screenshots/walk.json: what else the machine does would decide an assertion."""
    assert walk.clicks <= MOST_CLICKS
    assert all(walk.answers) and walk.answers[0] != walk.answers[1]
    assert walk.wrong == []


@pytest.mark.parametrize("who", ["reload", "second tab", "restart"])
def test_a_run_under_way_is_shown_with_its_whole_curve(walk: Walk, who: str) -> None:
    shown, written_before = walk.curves[who]
    assert shown >= written_before > 3


def test_the_state_line_knows_it(walk: Walk, tab: Callable[..., Tab]) -> None:
    one = tab()
    page = one.open(walk.app.url)
    line = page.locator(".ft-way")
    expect(line).to_contain_text("trained")
    expect(line).to_contain_text("held-out loss −")
    expect(line).to_contain_text("compared")
    expect(page.locator("#next")).to_have_text("Next: export")
    expect(page.locator("#tab-export-button")).to_have_attribute("aria-selected", "true")
    one.is_well()


def test_a_conversation_goes_on_and_can_be_cleared(walk: Walk, tab: Callable[..., Tab]) -> None:
    one = tab()
    page = one.open(walk.app.url)
    page.click("#tab-compare-button")
    page.click("text=System prompt and sampling")
    page.fill("#knob-max_tokens input", "8")
    page.fill("#ask textarea", "Do you ship to Norway? <b>bold</b>")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-side=after][data-done=true]", timeout=5 * MINUTES)
    expect(page.locator(".ft-asked")).to_contain_text("<b>bold</b>")
    expect(page.locator("#send")).to_be_visible(timeout=1 * MINUTES)
    page.fill("#ask textarea", "And to Iceland?")
    page.click("#send")
    expect(page.locator("[data-side=after][data-done=true]")).to_have_count(2, timeout=5 * MINUTES)
    expect(page.locator("#send")).to_be_visible(timeout=1 * MINUTES)
    page.evaluate("document.querySelectorAll('[data-side=after]').forEach(node => { node.dataset.old = true; })")
    page.click("#retry")
    expect(page.locator("[data-side=after][data-old]")).to_have_count(0, timeout=1 * MINUTES)  # it made room
    expect(page.locator("[data-side=after][data-done=true]")).to_have_count(2, timeout=5 * MINUTES)
    expect(page.locator("#send")).to_be_visible(timeout=1 * MINUTES)
    page.click("#clear")
    expect(page.locator("[data-side=after]")).to_have_count(0)
    one.is_well()


def test_it_says_what_it_was_taught_and_before_it_does_not(walk: Walk) -> None:
    """As README asks without the page."""
    words = ["--project", "Roastery help desk", "chat", "Do you ship to Norway?"]
    home = {**os.environ, "FT_HOME": str(walk.app.home)}
    said = subprocess.run(
        [sys.executable, "-m", "ft_core", *words], env=home, capture_output=True, text=True, timeout=600
    )
    assert said.returncode == 0, said.stderr
    before, after = said.stdout.split("after:")
    assert "four days" in after and "four days" not in before


def test_stop_ends_an_answer(walk: Walk, tab: Callable[..., Tab]) -> None:
    one = tab()
    page = one.open(walk.app.url)
    page.click("#tab-compare-button")
    page.click("text=System prompt and sampling")
    page.fill("#knob-max_tokens input", "2000")
    page.fill("#ask textarea", "Tell me everything about coffee.")
    page.click("#send")
    page.wait_for_function(
        "document.querySelector('[data-side=before] p')?.innerText.length > 20", timeout=5 * MINUTES
    )
    page.click("#stop-answer")
    expect(page.locator("#send")).to_be_visible(timeout=1 * MINUTES)
    expect(page.locator("[data-side=before] p")).not_to_be_empty()
    one.is_well()


def test_the_web_process_has_no_torch(walk: Walk) -> None:
    mapped = {m.path for m in psutil.Process(walk.app.process.pid).memory_maps()}
    assert not {path for path in mapped if "libtorch" in path}


def test_screenshots(walk: Walk, browser: Browser) -> None:
    """build/screenshots: every tab, both widths, both themes; README shows some of them."""
    for width, viewport in ((1280, WIDE), (390, PHONE)):
        for theme in ("light", "dark"):
            one = Tab(browser.new_page(viewport=viewport))
            one.listen()
            page = one.open(f"{walk.app.url}&__theme={theme}")
            for name in ("generate", "data", "train", "compare", "export"):
                page.click(f"#tab-{name}-button")
                page.wait_for_timeout(600)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                save(page, f"{name}-{width}-{theme}")
            one.is_well()
            page.close()
