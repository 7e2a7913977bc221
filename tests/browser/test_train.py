"""The Train tab on runs whose events were written by hand: nothing is trained here, so nothing takes long."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ft_core import about, jobs, recipe
from ft_core.events import Finished

from .conftest import PHONE, WIDE, Tab, save, serious
from .runs import STEPS, TOTAL, Runs, named, open_train, tick


@pytest.fixture
def page(tab: Callable[..., Tab], runs: Runs) -> Page:
    return open_train(tab(WIDE), runs)


def saved(page: Page, label: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_label(label).click()
    return Path(download.value.path()).read_bytes()


def test_curves_of_other_runs_lie_over_it_and_what_is_set_stays(page: Page, runs: Runs) -> None:
    legend = page.locator(".c-legend span")
    expect(legend).to_have_count(2)
    tick(page, 2)
    tick(page, 1)
    assert legend.all_inner_texts() == ["#4, trained", "#4, held out", "#1, held out", "#2 rank 8, held out"]
    dashes = [line.get_attribute("stroke-dasharray") for line in legend.locator("line").all()]
    assert dashes[:2] == ["", ""] and len(set(dashes[2:])) == 2 and "" not in dashes[2:]

    for _ in range(4):
        page.locator("[name=smooth]").press("ArrowRight")
    page.get_by_label("Log scale").check()
    page.click("#of-run > summary")
    page.fill("#of-run [name=name]", "half typed")
    runs.go_on(runs.jobs[3], STEPS + 1)
    page.wait_for_function(f"document.querySelector('#chart [data-last-step]').dataset.lastStep == {STEPS + 1}")
    expect(page.locator("[name=smooth]")).to_have_value("20")
    expect(page.locator(".c-tools output")).to_have_text("20 %")
    expect(page.get_by_label("Log scale")).to_be_checked()
    expect(page.locator("#of-run [name=name]")).to_have_value("half typed")
    expect(page.get_by_label("Curves of run 2 over")).to_be_checked()
    expect(legend).to_have_count(4)

    page.locator("#chart canvas").focus()
    page.keyboard.press("Home")
    tip = page.locator(".c-tip div")
    assert tip.all_inner_texts() == ["step 1", "#4, trained 3.600", "#4, held out 3.600 (step 0)",
                                     "#1, held out 3.600 (step 0)", "#2 rank 8, held out 3.600 (step 0)"]  # fmt: skip
    expect(page.locator("#chart [role=status]")).to_contain_text("step 1, #4, trained 3.600")

    page.select_option("#chart select", "learning_rate")
    expect(legend).to_have_count(3)
    expect(page.locator(".c-unit")).to_contain_text("zeros are not on a log scale")
    assert saved(page, "Save the chart as a picture (PNG)").startswith(b"\x89PNG")
    rows = list(csv.DictReader(io.StringIO(saved(page, "Save all figures of these runs as a table (CSV)").decode())))
    assert {name: sum(row["run"] == name for row in rows) for name in ("#4", "#1", "#2 rank 8")} == {
        "#4": STEPS + 2, "#1": STEPS + 1, "#2 rank 8": STEPS + 1,
    }  # fmt: skip
    last = [row for row in rows if row["run"] == "#4"][-1]
    assert (last["step"], float(last["learning_rate"])) == (str(STEPS + 1), 1e-3 / (STEPS + 1))
    save(page, "train-curves")


def test_four_lie_over_it_and_no_more(page: Page, runs: Runs) -> None:
    for rank in (20, 24):
        runs.add(rank, finished=True)
    expect(named(page, 6)).to_be_visible()
    for number in (1, 2, 3, 5):
        tick(page, number)
    expect(page.get_by_label("Curves of run 6 over")).to_be_disabled()
    expect(page.get_by_label("Curves of run 4 over")).to_be_disabled()  # the one that is looked at
    named(page, 5).click()
    expect(page.locator("#run-state [data-state=finished]")).to_be_visible()
    expect(page.locator(".c-legend span")).to_have_count(5)


def test_a_run_is_named_repeated_and_deleted(page: Page, runs: Runs) -> None:
    named(page, 1).click()
    about_which = page.locator("#of-run > summary")
    expect(about_which).to_contain_text("Run 1")
    about_which.click()
    page.fill("#of-run [name=name]", "rank <b>4</b>")
    page.fill("#of-run [name=note]", "too small\nfor prices")
    page.click("#of-run [name=keep]")
    expect(named(page, 1)).to_contain_text("rank <b>4</b> · ")
    expect(named(page, 1)).to_contain_text("held-out loss −44 % · step 20 of 30 kept")
    assert about.read(runs.jobs[0]).note == "too small\nfor prices"

    page.click("#of-run [name=again]")
    page.locator("#advanced button").first.click()
    expect(page.locator("#knob-rank input")).to_have_value("4")
    assert recipe.load(runs.project.recipe).train.rank == 4

    page.click(".r-delete > summary")
    page.click(".r-delete [name=delete]")
    expect(page.locator(".ft-runs li")).to_have_count(3)
    expect(named(page, 2)).to_contain_text("rank 8")  # the others keep their numbers
    assert not runs.jobs[0].path.exists()
    expect(about_which).to_contain_text("Run 4")
    page.click(".r-delete > summary")
    page.click(".r-delete [name=delete]")  # now of the one that runs
    expect(page.locator("#train-notice")).to_contain_text("It is not over yet")
    assert runs.jobs[3].path.exists()
    page.evaluate("document.querySelectorAll('#train-notice').forEach(n => n.remove())")  # it was asked for


def test_the_recipe_is_a_file_both_ways(page: Page, runs: Runs, tmp_path: Path) -> None:
    page.locator("#recipe-file button").first.click()
    box = page.locator("#recipe-text textarea")
    expect(box).to_have_value(re.compile("rank: 16"))
    text = box.input_value()
    assert recipe.parse(text) == recipe.preset("Quick look")

    box.fill(text.replace("rank: 16", "rank: 0").replace("alpha: 32", "alpha: 64"))
    page.click("#recipe-apply")
    expect(page.locator("#recipe-notice")).to_contain_text("The recipe: train: rank is 0.")
    assert not runs.project.recipe.exists()

    box.fill(text.replace("rank: 16", "rank: 24").replace("top_p: 0.95", "top_p: 0.5"))
    page.click("#recipe-apply")
    expect(page.locator("#recipe-notice")).to_contain_text("2 fields changed.train: rank, compare: top_p")
    page.locator("#advanced button").first.click()
    expect(page.locator("#knob-rank input")).to_have_value("24")
    expect(page.locator("#preset input:checked")).to_have_count(0)

    page.fill("#knob-rank input", "40")
    page.locator("#knob-rank input").blur()
    expect(box).to_have_value(re.compile("rank: 40"))
    with page.expect_download() as download:
        page.click("#recipe-download")
    file = Path(download.value.path()).read_text()
    assert recipe.parse(file) == recipe.load(runs.project.recipe) and "rank: 40" in file
    assert download.value.suggested_filename == "recipe.yaml"

    mine = tmp_path / "mine.yaml"
    mine.write_text(file.replace("rank: 40", "rank: 6"))
    page.set_input_files("#recipe-files input[type=file]", mine)
    expect(page.locator("#knob-rank input")).to_have_value("6")
    assert recipe.load(runs.project.recipe).train.rank == 6

    box.fill(file.replace("max_length: 512", "max_length: 40"))
    page.click("#recipe-apply")
    expect(page.locator("#knob-max_length input")).to_have_value("40")
    page.locator("#forecast [data-field=max_length]").first.click()  # a finding's button turns the knob
    expect(page.locator("#knob-max_length input")).not_to_have_value("40")
    assert recipe.load(runs.project.recipe).train.max_length > 40
    save(page, "train-recipe")


def test_the_next_one_waits_and_can_be_cancelled(page: Page, runs: Runs) -> None:
    """A real child process waits for its turn, and never gets it."""
    with jobs.machine(runs.project.workspace, f"train {runs.jobs[3].id}"):
        page.click("#train:has-text('Train after this one')")
        expect(named(page, 5)).to_contain_text("waits for its turn, after run 4")
        expect(page.locator("#run-state")).to_contain_text("step 30 of 60")  # the page stays with the one that runs
        waits = runs.project.jobs()[0]
        assert jobs.alive(waits)
        page.get_by_label("Cancel run 5, which waits").click()
        expect(named(page, 5)).to_contain_text("cancelled")
        assert jobs.wait(waits).step == 0
    expect(page.locator(".r-cancel")).to_have_count(0)


def test_the_title_goes_along_and_the_browser_tells_the_end(tab: Callable[..., Tab], runs: Runs) -> None:
    one = tab(PHONE)
    one.page.add_init_script("""window.told = [];
        window.Notification = class { constructor(...said) { told.push(said); }
          static permission = 'default';
          static async requestPermission() { return this.permission = 'granted'; } };""")
    page = open_train(one, runs)
    expect(page).to_have_title(f"{STEPS}/{TOTAL} · FT Flow")
    page.click("text=Tell me when it is done")
    expect(page.locator(".ft-tell > span")).to_be_visible()
    save(page, "train-running-390")
    runs.say(runs.jobs[3], Finished({"heldout_before": 3.0, "heldout_after": 1.5, "adapter": "x"}))
    page.wait_for_function("told.length")
    assert page.evaluate("told[0]") == ["The training is finished", {"body": "held-out loss −50 %", "tag": "ft-flow"}]
    expect(page).to_have_title("FT Flow")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_finding_of_axe(page: Page, runs: Runs, theme: str) -> None:
    page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
    tick(page, 1)
    page.click("#of-run > summary")
    page.click(".r-delete > summary")
    page.locator("#recipe-file button").first.click()
    page.wait_for_selector("#recipe-text")
    assert serious(page, "#tabs") == []
