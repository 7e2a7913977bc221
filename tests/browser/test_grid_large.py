"""Half a million rows in the grid: more than a browser can make a page tall, so the bar stands for them by share."""

from __future__ import annotations

import random

import pytest
from playwright.sync_api import Page, expect

from ft_core.conversation import Conversation, Message
from ft_core.data import bulk
from ft_core.data.columns import Query
from ft_core.data.store import Store
from ft_core.workspace import Project, Workspace

from .conftest import App

DIFFERENT, ROWS = 2000, 2000 * 2**8

# [place counted from 0, text] of every row that is in view, once the table is full of them.
SEEN = """() => {
  const view = document.querySelector('.g-view'), box = view.getBoundingClientRect();
  const rows = [...view.querySelectorAll('.g-rows [role=row]')].map(row => [row, row.getBoundingClientRect()])
    .filter(([, r]) => r.bottom > box.top + 1 && r.top < box.bottom - 1);
  const full = rows.length && rows[0][1].top <= box.top + 1 && rows.at(-1)[1].bottom > box.bottom - rows[0][1].height;
  return full ? rows.map(([row]) => [+row.getAttribute('aria-rowindex') - 2, row.textContent]) : null;
}"""


@pytest.fixture(scope="module")
def large(app: App) -> Project:
    """Row at place n, counted from 0, asks about n % DIFFERENT."""
    project = Workspace.at(app.home).project("Large", create=True)
    with Store(project.data) as store:
        store.add(
            Conversation((Message("user", f"Question {n}:"), Message("assistant", f"Answer {n}.")))
            for n in range(DIFFERENT)
        )
        while store.count() < ROWS:
            bulk.duplicate(store, Query())
    return project


def seen(page: Page) -> list[tuple[int, str]]:
    return page.wait_for_function(SEEN).json_value()


def test_any_place_of_half_a_million_rows_shows_its_own(app: App, tab, large: Project) -> None:
    one = tab()
    page = one.open(app.url.replace("Roastery+help+desk", "Large"))
    page.click("#tab-data-button")
    expect(page.locator(".g-sum")).to_contain_text(f"{ROWS:,} rows")
    dice = random.Random(5)
    for share in (0.0, 1.0, *(dice.random() for _ in range(12))):
        page.evaluate("s => { const v = document.querySelector('.g-view'); v.scrollTop = s * v.scrollHeight; }", share)
        page.wait_for_function(
            f"(() => {{ const now = ({SEEN})(); return now && Math.abs(now[0][0] / {ROWS} - {share}) < 0.001; }})()"
        )
        found = seen(page)
        places = [place for place, _ in found]
        assert places == list(range(places[0], places[0] + len(places)))
        assert all(f"Question {place % DIFFERENT}:" in text for place, text in found)
    page.locator(".g-rows [role=gridcell][data-col=prompt]").first.click()
    page.keyboard.press("Control+Home")
    page.wait_for_function(f"(({SEEN})() ?? [[9]])[0][0] === 0")
    page.keyboard.press("Control+End")
    page.wait_for_function(f"(({SEEN})() ?? [[0]]).at(-1)[0] === {ROWS - 1}")
    for _ in range(40):  # one row at a time, past the upper edge
        page.keyboard.press("ArrowUp")
    page.wait_for_function(f"+document.activeElement.closest('[role=row]')?.ariaRowIndex === {ROWS - 40 - 1 + 2}")
    one.is_well()


def test_an_edit_far_down_is_kept_in_the_row_that_was_seen(app: App, tab, large: Project) -> None:
    one = tab()
    page = one.open(app.url.replace("Roastery+help+desk", "Large"))
    page.click("#tab-data-button")
    seen(page)
    page.evaluate("document.querySelector('.g-view').scrollTop = 0.7 * document.querySelector('.g-view').scrollHeight")
    page.wait_for_function(f"(({SEEN})() ?? [[0]])[0][0] > {ROWS * 0.69}")
    place, _ = seen(page)[5]
    cell = page.locator(f".g-rows [role=row][aria-rowindex='{place + 2}'] [data-col=response]")
    cell.dblclick()
    page.keyboard.press("End")
    page.keyboard.type(" And more.")
    page.keyboard.press("Enter")
    expect(page.locator(".g-said")).to_contain_text(f"Row {place + 1} saved")
    with Store(large.data) as store:
        assert store.get(place + 1).conversation.messages[1].content == f"Answer {place % DIFFERENT}. And more."
        assert store.page(Query(search="And more.")).total == 1
    page.click("[data-act=undo]")
    expect(cell).to_have_text(f"Answer {place % DIFFERENT}.")
    assert seen(page)[0][0] > ROWS * 0.69
    one.is_well()
