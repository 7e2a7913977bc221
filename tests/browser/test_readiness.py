"""What stands under the rows: that they are ready, or what to look at, each with a button that does it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ft_core import recipe
from ft_core.conversation import Conversation, Message
from ft_core.data import split
from ft_core.data.store import Store
from ft_core.workspace import Project, Workspace

from .conftest import App, save
from .test_data import rows

A_CHECK = 60_000
"""Milliseconds for a first check, which loads word lists, where others keep the machine busy."""


def talk(asked: str, answered: str) -> Conversation:
    return Conversation((Message("user", asked), Message("assistant", answered)), origin=f"made row {asked}")


_THINGS = ("kettle", "grinder", "sofa", "bicycle", "piano", "lantern", "canoe", "oven", "violin", "tent", "globe",
           "saddle", "telescope", "wardrobe", "anvil", "hammock", "compass", "carpet", "organ", "ladder", "clock",
           "sledge", "mirror", "barrel")  # fmt: skip


@pytest.fixture
def project(app: App, request: pytest.FixtureRequest) -> Iterator[Project]:
    """Twenty-four rows that nothing is wrong with, and one for each of four findings."""
    made = Workspace(app.home).project(f"Check {request.node.name[-12:]}", create=True)
    with Store(made.data) as store:
        store.add(talk(f"Who repairs a {t}?", f"Ask the {t} shop in lane {i}; they mend it within {i + 2} days.")
                  for i, t in enumerate(_THINGS))  # fmt: skip
        store.add([talk("Who repairs a kettle?", "Ask the kettle shop in lane 0; they mend it within 2 days.")])
        store.add([talk("Is the key there?", "Write to anna.berg@fjordmail.no about it, she has the key.")])
        store.add(
            [
                talk(
                    "Tell me all.",
                    "It began by the sea in a small town. "
                    + " ".join(
                        f"Then, in year {n}, house {n * 7} got its {n}th owner, named after river {n * 3}."
                        for n in range(60)
                    ),
                )
            ]
        )
        split.assign(store, 0.1, 3)
    yield made


def open_checks(app: App, page: Page, project: Project) -> None:
    page.goto(app.url.replace("Roastery+help+desk", project.name.replace(" ", "+")))
    expect(page.locator("#tab-train-button")).to_have_attribute("aria-selected", "true")  # the next step
    rows(page)
    expect(page.locator("#checks")).to_contain_text("to look at", timeout=A_CHECK)
    expect(page.locator("#checks")).not_to_contain_text("Checking")
    page.click("#findings summary")


def finding(page: Page, name: str):
    return page.locator(f"[data-finding={name}]")


def test_the_example_is_calm(app: App, tab) -> None:
    one = tab()
    page = rows(one.open(app.url))
    expect(page.locator("#checks")).to_contain_text("Checked: ready to train.", timeout=A_CHECK)
    expect(page.locator("#findings")).to_have_count(0)
    expect(page.locator("[data-view=flagged]")).to_be_hidden()
    page.click("#about-set summary")
    expect(page.locator("#about-set")).to_contain_text("of its five-word phrases")
    one.is_well()


def test_findings_are_put_right_by_their_buttons(app: App, tab, project: Project) -> None:
    one = tab()
    open_checks(app, one.page, project)
    page = one.page
    save(page, "readiness")
    finding(page, "personal_data").locator("[data-do=show]").click()
    expect(page.locator(".g-row")).to_have_count(1)
    expect(page.locator(".g-row")).to_contain_text("anna.berg")
    expect(page.locator(".g-chip")).to_contain_text("personal data")
    finding(page, "personal_data").locator("[data-do=reject]").click()
    expect(finding(page, "personal_data")).to_have_count(0)
    expect(page.locator(".g-sum")).to_contain_text("1 rejected")

    finding(page, "duplicate").locator("[data-do=groups]").click()
    groups = page.locator("#groups")
    expect(groups).to_contain_text("1 group of rows that say the same")
    expect(groups.locator("ul li")).to_have_count(2)
    groups.locator("[data-do=reject]").click()
    expect(finding(page, "duplicate")).to_have_count(0)
    expect(page.locator(".g-sum")).to_contain_text("2 rejected")

    cut = finding(page, "cut").locator("[data-do=max_length]")
    limit = int(cut.get_attribute("data-value"))
    cut.click()
    expect(finding(page, "cut")).to_have_count(0)
    assert recipe.load(project.recipe).train.max_length == limit > 512
    page.click("#tab-train-button")
    page.locator("#advanced button").first.click()
    expect(page.locator("#advanced")).to_be_visible()
    expect(page.locator("#knob-max_length input").first).to_have_value(str(limit))
    one.is_well()


def test_what_is_downloaded_are_the_rows(app: App, tab) -> None:
    one = tab()
    page = rows(one.open(app.url))
    page.click("[data-page=export]")
    page.select_option("#give [name=shape]", "prompt-completion")
    page.select_option("#give [name=format]", "jsonl")
    page.select_option("#give [name=split]", "heldout")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    lines = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    with Store(Workspace(app.home).project("Roastery help desk").data) as store:
        held = [c for _, c, _ in store.conversations("heldout")]
    found = [r["completion"] if isinstance(r["completion"], str) else r["completion"][0]["content"] for r in lines]
    assert found == [c.messages[-1].content for c in held]
    assert len(held) == 8
    one.is_well()


def test_a_shape_that_cannot_hold_the_rows_is_told_in_place(app: App, tab) -> None:
    page = rows(tab().open(app.url))
    page.click("[data-page=export]")
    page.select_option("#give [name=shape]", "text")
    page.get_by_role("button", name="Download").click()
    expect(page.locator("#give .ft-error strong")).to_contain_text("cannot be written as text")
