"""The Data tab as a person uses it: rows edited in place, undone, judged, searched, brought in and taken out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from .conftest import PHONE, App

EVIL = "<img src=x onerror=\"document.title='owned'\">${document.title='owned'}"


def rows(page: Page) -> Page:
    page.click("#tab-data-button")
    page.wait_for_selector(".g-row")
    return page


def cell(page: Page, row: int, column: str):
    return page.locator(".g-row").nth(row).locator(f"[data-col={column}]")


def new_project(page: Page, name: str) -> None:
    page.locator(".ft-project select").select_option(label="Start my own …")
    page.fill("#new-project-name", name)
    page.keyboard.press("Enter")
    expect(page.locator(".ft-project select")).to_have_value(name)
    expect(page.locator(".g-start")).to_be_visible()


def bring(page: Page, *paths: Path) -> None:
    page.locator("[data-page=import]:visible").first.click()
    with page.expect_file_chooser() as chooser:
        page.locator("[data-page=pick]:visible").click()
    chooser.value.set_files(paths)


def test_first_start(app: App, tab) -> None:
    one = tab()
    page = one.open(app.url)
    expect(page.locator(".ft-first h2")).to_contain_text("Teach a small language model")
    expect(page.locator("[data-do=train-example]")).to_be_visible()
    assert page.locator("#tabs button[role=tab]").all_inner_texts() == [
        "Generate",
        "Data",
        "Train",
        "Compare",
        "Export",
    ]
    page.wait_for_selector(".g-row")
    expect(page.locator(".g-sum")).to_have_text("80 rows · 72 to train · 8 held out")
    one.is_well()


def test_edit_in_place_and_undo(app: App, tab) -> None:
    one = tab()
    page = rows(one.open(app.url))
    was = cell(page, 1, "response").inner_text()
    cell(page, 1, "response").dblclick()
    page.keyboard.type(EVIL)
    page.keyboard.press("Enter")
    expect(cell(page, 1, "response")).to_have_text(EVIL)
    expect(page.locator(".g-cell:focus")).to_have_attribute("data-col", "response")
    page.reload()
    rows(page)
    expect(cell(page, 1, "response")).to_have_text(EVIL)
    cell(page, 1, "prompt").click()
    expect(page.locator(".g-turn textarea").nth(1)).to_have_value(EVIL)
    cell(page, 1, "response").dblclick()
    page.keyboard.type("never mind")
    page.keyboard.press("Escape")
    expect(cell(page, 1, "response")).to_have_text(EVIL)
    cell(page, 1, "prompt").click()
    page.keyboard.press("Control+z")
    expect(cell(page, 1, "response")).to_have_text(was)
    page.click("[data-act=redo]")
    expect(cell(page, 1, "response")).to_have_text(EVIL)
    page.click("[data-act=undo]")
    expect(cell(page, 1, "response")).to_have_text(was)
    assert page.title() == "FT Flow"
    one.is_well()


def test_keys_alone(app: App, tab) -> None:
    one = tab()
    page = rows(one.open(app.url))
    cell(page, 0, "prompt").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    page.keyboard.type(" More.")
    page.keyboard.press("Tab")  # takes it, and goes on to the next row's question
    expect(cell(page, 1, "response")).to_contain_text("More.")
    expect(cell(page, 2, "prompt")).to_have_class("g-cell is-prompt is-typing")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    expect(cell(page, 1, "response")).not_to_contain_text("More.")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("r")  # on the mark: rejected, and accepted again
    expect(page.locator(".g-row.is-rejected")).to_have_count(1)
    page.keyboard.press("Space")
    expect(page.locator(".g-row.is-rejected")).to_have_count(0)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    one.is_well()


def test_views_search_and_what_is_learnt(app: App, tab) -> None:
    one = tab()
    page = rows(one.open(app.url))
    page.click("[data-view=heldout]")
    expect(page.locator(".g-row")).to_have_count(8)
    page.click("[data-view=all]")
    page.fill(".g-search", "norway")
    expect(page.locator(".g-row").first).to_contain_text("Norway")
    page.wait_for_function("document.querySelectorAll('.g-row').length < 10")
    assert page.locator(".g-row").count() > 0
    cell(page, 0, "prompt").click()
    expect(page.locator(".g-d-tokens mark").first).to_be_visible()
    expect(page.locator(".g-d-count")).to_contain_text("tokens are learnt")
    learnt = "".join(page.locator(".g-d-tokens mark").all_inner_texts())
    assert cell(page, 0, "response").inner_text()[:20] in learnt
    assert "Norway" not in learnt
    one.is_well()


def test_import_shows_before_it_takes(app: App, tab, tmp_path: Path) -> None:
    file = tmp_path / "faq.csv"
    file.write_text('Question,Answer\nWhere are you?,In Lerwick.\nDo you sell tea?,"No, coffee."\nNo answer?,\n')
    one = tab()
    page = one.open(app.url)
    new_project(page, "Import")
    expect(page.locator(".g-start")).to_be_visible()
    bring(page, file)
    preview = page.locator("#import-preview")
    expect(preview).to_contain_text("Nothing is taken yet")
    expect(preview).to_contain_text("In Lerwick.")
    expect(page.locator(".ft-way")).to_contain_text("no rows yet")
    page.click("#import-preview button[type=submit]")
    expect(preview).to_contain_text("2 rows taken from faq.csv")
    expect(preview).to_contain_text("1 row could not be used")
    expect(page.locator(".g-sum")).to_have_text("2 rows")
    expect(page.locator(".ft-way")).to_contain_text("2 rows")
    with page.expect_download() as download:
        page.click("[data-page=export]")
        page.click("#give [type=submit]:visible")
    lines = Path(download.value.path()).read_text().splitlines()
    assert [json.loads(line)["messages"][-1]["content"] for line in lines] == ["In Lerwick.", "No, coffee."]
    one.is_well()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.csv", b"", "empty.csv is empty"),
        ("columns.csv", b"colour,size\nred,3\n", "columns.csv"),
        ("empty.parquet", b"", "empty.parquet"),
    ],
)
def test_bad_files_are_told_in_place(app: App, tab, tmp_path: Path, name: str, content: bytes, says: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    one = tab()
    page = rows(one.open(app.url))
    bring(page, file)
    expect(page.locator("#import-preview .ft-error")).to_contain_text(says)
    expect(page.locator(".g-sum")).to_contain_text("80 rows")
    page.locator("#import-preview [data-do=leave]").last.click()
    expect(page.locator("#import-preview .ft-error")).to_have_count(0)
    one.is_well()


def test_a_break_at_line_17_is_told_and_nothing_is_taken(app: App, tab, tmp_path: Path) -> None:
    line = json.dumps({"instruction": "a?", "output": "b"}) + "\n"
    file = tmp_path / "broken.jsonl"
    file.write_text(line * 16 + '{"instruction": "a", \n' + line)
    one = tab()
    page = rows(one.open(app.url))
    bring(page, file)
    page.click("#import-preview button[type=submit]")
    told = page.locator("#import-preview .ft-error")
    expect(told).to_contain_text("broken.jsonl")
    expect(told).to_contain_text("17")
    expect(page.locator(".g-sum")).to_contain_text("80 rows")
    page.click("#import-preview button[type=submit]")  # now: the rows before the break
    expect(page.locator("#import-preview")).to_contain_text("16 rows taken")
    expect(page.locator(".g-sum")).to_contain_text("96 rows")
    page.click("[data-act=undo]")
    expect(page.locator(".g-sum")).to_contain_text("80 rows")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_never_scrolls_sideways(app: App, tab, theme: str) -> None:
    one = tab(PHONE)
    page = one.open(f"{app.url}&__theme={theme}")
    assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
    for name in ("generate", "data", "train", "compare", "export"):
        page.click(f"#tab-{name}-button")
        expect(page.locator(f"#tab-{name}")).to_be_visible()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    page.click("#tab-data-button")
    cell(page, 0, "prompt").click()
    expect(page.locator(".g-drawer")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    one.is_well()


def test_light_and_dark_by_button_and_kept(app: App, tab) -> None:
    one = tab()
    page = one.open(app.url)
    was = page.evaluate("document.body.classList.contains('dark')")
    page.click("[data-page=theme]")
    page.reload()
    page.wait_for_selector(".ft-header")
    page.wait_for_function(f"document.body.classList.contains('dark') === {str(not was).lower()}")
    one.is_well()


def test_a_reload_comes_back_to_the_tab_that_was_open(app: App, tab) -> None:
    one = tab()
    page = one.open(app.url)
    expect(page.locator("#tab-data-button")).to_have_attribute("aria-selected", "true")  # where the example begins
    page.click("#tab-export-button")
    page.reload()
    page.wait_for_selector(".ft-header")
    expect(page.locator("#tab-export-button")).to_have_attribute("aria-selected", "true")
    new_project(page, "Another one")
    expect(page.locator("#tab-export-button")).to_have_attribute("aria-selected", "false")
    assert "tab=" not in page.url
    page.keyboard.press("Alt+4")
    assert page.url.endswith("?project=Another+one&tab=compare")
    one.is_well()


def test_a_tab_that_is_chosen_before_the_page_is_drawn_stays(app: App, tab) -> None:
    one = tab()
    page, held, chosen = one.page, [], []
    page.route("**/gradio_api/run/**", lambda route: route.continue_() if chosen else held.append(route))
    with page.expect_request("**/gradio_api/run/**"):
        page.goto(app.url)
    page.click("#tab-compare-button")
    assert held and not page.locator(".ft-header").count()
    chosen.append("compare")
    for route in held:
        route.continue_()
    page.wait_for_selector(".ft-header")
    expect(page.locator("#tab-compare-button")).to_have_attribute("aria-selected", "true")
    page.wait_for_timeout(500)  # it does not go away again
    expect(page.locator("#tab-compare-button")).to_have_attribute("aria-selected", "true")
    one.is_well()
