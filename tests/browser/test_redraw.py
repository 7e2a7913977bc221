"""What a person unfolded, typed, ticked or opened, when the panel is drawn anew meanwhile.

Gradio patches what is drawn anew into the nodes that are there, in their order: a node may come to stand for something
else than what the person touched.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from ft_core import about

from .conftest import WIDE, Tab
from .runs import STEPS, Runs, named, open_train, tick


@pytest.fixture
def page(tab: Callable[..., Tab], runs: Runs) -> Page:
    return open_train(tab(WIDE), runs)


def test_what_is_unfolded_before_the_answer_comes_stays_unfolded(page: Page, runs: Runs) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route) if "pick" in route.request.post_data else route.continue_()

    page.route("**/run/predict*", hold)
    with page.expect_request(lambda request: "pick" in (request.post_data or "")):
        named(page, 1).click()
    page.click("#of-run > summary")
    expect(page.locator("#of-run [name=name]")).to_be_visible()
    held[0].continue_()
    page.unroute("**/run/predict*")
    expect(page.locator("#of-run > summary")).to_contain_text("Run 1")
    expect(page.locator("#of-run [name=name]")).to_be_visible()
    page.click("#of-run > summary")
    named(page, 2).click()
    expect(page.locator("#of-run > summary")).to_contain_text("Run 2")
    expect(page.locator("#of-run [name=name]")).to_be_hidden()  # it was folded again


def test_what_is_typed_for_a_run_is_not_another_runs(page: Page, runs: Runs) -> None:
    about.keep(runs.jobs[0], note="the first")
    page.click("#of-run > summary")
    page.fill("#of-run [name=name]", "half typed")
    page.fill("#of-run [name=note]", "half typed")
    named(page, 1).click()
    expect(page.locator("#of-run > summary")).to_contain_text("Run 1")
    expect(page.locator("#of-run [name=name]")).to_have_value("")
    expect(page.locator("#of-run [name=note]")).to_have_value("the first")
    named(page, 2).click()
    expect(page.locator("#of-run [name=name]")).to_have_value("rank 8")
    expect(page.locator("#of-run [name=note]")).to_have_value("")
    named(page, 4).click()
    expect(page.locator("#of-run [name=note]")).to_have_value("half typed")  # where it belongs, nothing is lost


def test_what_one_form_sends_leaves_what_waits_in_the_other(page: Page, runs: Runs) -> None:
    about_which, note, steps = (page.locator(f"#of-run {it}") for it in ("> summary", "[name=note]", "[name=steps]"))
    about_which.click()
    note.fill("mine")
    steps.fill("90")  # of the one that runs, so it is refused
    page.click("#of-run [name=go-further]")
    expect(page.locator("#train-notice .ft-error")).to_be_visible()
    named(page, 2).click()
    expect(about_which).to_contain_text("Run 2")
    expect(note).to_have_value("")
    named(page, 4).click()
    expect(about_which).to_contain_text("Run 4")
    expect(note).to_have_value("mine")
    expect(steps).to_have_value("")
    page.evaluate("document.querySelectorAll('#train-notice').forEach(n => n.remove())")  # it was asked for


def test_a_tick_stays_with_its_run_when_the_list_grows(page: Page, runs: Runs) -> None:
    tick(page, 2)
    runs.add(20, finished=True)
    expect(named(page, 5)).to_be_visible()
    ticked = page.locator(".ft-runs input:checked")
    expect(ticked).to_have_count(1)
    expect(ticked).to_have_attribute("aria-label", "Curves of run 2 over the one you look at")


def test_the_name_of_a_new_project_can_be_typed_while_a_training_runs(page: Page, runs: Runs) -> None:
    picker, way = page.locator(".ft-project select"), page.locator(".ft-way")
    picker.select_option(label="Start my own …")
    page.fill("#new-project-name", "Its own")
    runs.go_on(runs.jobs[3], STEPS + 1)
    expect(way).to_have_attribute("data-step", str(STEPS + 1))
    expect(page.locator("#new-project-name")).to_be_visible()
    expect(page.locator("#new-project-name")).to_have_value("Its own")
    page.click("#new-project button[type=submit]")
    expect(picker).to_have_value("Its own")
    expect(page.locator("#new-project")).to_be_hidden()


def test_the_picker_names_the_project_that_is_open(page: Page, runs: Runs) -> None:
    picker = page.locator(".ft-project select")
    for name in ("Mine one", "Mine two"):
        picker.select_option(label="Start my own …")
        page.fill("#new-project-name", name)
        page.click("#new-project button[type=submit]")
        expect(picker).to_have_value(name)
    picker.select_option(label=runs.project.name)
    expect(picker).to_have_value(runs.project.name)
    expect(page.locator("#of-run > summary")).to_contain_text("Run 4")
    picker.select_option(label="Start my own …")
    page.fill("#new-project-name", "Mine three")
    page.click("#new-project button[type=submit]")
    expect(picker).to_have_value("Mine three")
