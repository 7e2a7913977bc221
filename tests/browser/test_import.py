"""Rows are brought in as a person does it: pasted, several files at once, a large one as a job; looked at before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ft_core.data.store import Store
from ft_core.workspace import Workspace

from .conftest import PHONE, App, save
from .test_data import EVIL, bring, new_project

A_CHILD = 60_000
"""Milliseconds for a process to start and look, where others keep the machine busy."""


def ways(page: Page, way: str) -> None:
    page.locator("[data-page=import]:visible").first.click()
    page.check(f"#import [value={way}]")


def paste(page: Page, text: str) -> None:
    ways(page, "paste")
    page.fill("#import-text", text)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")


def texts(app: App, project: str) -> list[list[str]]:
    with Store(Workspace(app.home).project(project).data) as store:
        return [[m.content for m in c.messages] for _, c, _ in store.conversations()]


def test_pasted_rows_are_looked_at_mapped_and_shown(app: App, tab) -> None:
    one = tab()
    page = one.open(app.url)
    new_project(page, "Pasted")
    paste(page, f"Frage\tAntwort\tTopic\nWo seid ihr?\t{EVIL}\tplace\nTee?\tNein, Kaffee.\tgoods\n")
    preview = page.locator("#import-preview")
    expect(preview.locator(".ft-error")).to_contain_text("Frage, Antwort, Topic")
    expect(preview.locator("button[type=submit]")).to_have_count(0)
    preview.locator("[name=shape]").select_option("prompt-completion")
    preview.locator("[name=map-prompt]").focus()
    preview.locator("[name=map-prompt]").select_option("Frage")
    expect(preview.locator("[name=map-prompt]")).to_have_value("Frage")
    expect(preview.locator("[name=map-prompt]")).to_be_focused()
    preview.locator("[name=map-completion]").select_option("Antwort")
    expect(preview.locator("tbody")).to_contain_text("onerror")
    preview.locator("[name=map-system]").select_option("Topic")
    expect(preview.locator("tbody")).to_contain_text("goods")
    preview.locator("[name=map-system]").select_option("")
    expect(preview.locator("tbody")).not_to_contain_text("goods")
    save(page, "import-preview")
    preview.locator("button[type=submit]").click()
    expect(preview).to_contain_text("2 rows taken from pasted text")
    assert texts(app, "Pasted") == [["Wo seid ihr?", EVIL], ["Tee?", "Nein, Kaffee."]]
    expect(page.locator(".g-sum")).to_have_text("2 rows")
    paste(page, "Q: And more?\nA: Yes.")
    preview.locator("button[type=submit]").click()
    expect(preview).to_contain_text("1 row taken")
    expect(page.locator(".g-sum")).to_have_text("3 rows")
    assert page.title() == "FT Flow"
    one.is_well()


def test_several_files_are_one_operation_and_can_be_shown_alone(app: App, tab, tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("Question,Answer\nWhere?,In Lerwick.\nTea?,No.\n")
    (tmp_path / "more.jsonl").write_text(json.dumps({"instruction": "Hours?", "output": "Nine to five."}) + "\n")
    one = tab()
    page = one.open(app.url)
    new_project(page, "Several")
    bring(page, tmp_path / "faq.csv", tmp_path / "more.jsonl")
    preview = page.locator("#import-preview")
    expect(preview.locator("h2")).to_have_text("2 files")
    preview.locator("button[type=submit]").click()
    expect(preview).to_contain_text("3 rows taken from 2 files")
    preview.locator("[data-do=show]").last.click()
    expect(page.locator(".g-row")).to_have_count(1)
    expect(page.locator(".g-row")).to_contain_text("Hours?")
    expect(page.locator(".g-chip")).to_contain_text("more.jsonl")
    page.click("[data-act=undo]")
    expect(page.locator(".g-start")).to_be_visible()
    one.is_well()


def test_all_that_could_not_be_used_is_named(app: App, tab, tmp_path: Path) -> None:
    rows = [{"question": f"q{i}?", "answer": "a" if i % 2 else ""} for i in range(60)]
    (tmp_path / "half.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = tab()
    page = one.open(app.url)
    new_project(page, "Half")
    bring(page, tmp_path / "half.jsonl")
    page.locator("#import-preview button[type=submit]").click()
    preview = page.locator("#import-preview")
    expect(preview).to_contain_text("30 rows could not be used")
    preview.get_by_text("30 rows could not be used").click()
    expect(preview.locator("li:visible")).to_have_count(20)
    preview.get_by_text("10 more").click()
    expect(preview.locator("li:visible")).to_have_count(30)
    one.is_well()


def test_the_hub_and_paths_refuse_in_place(app: App, tab, tmp_path: Path) -> None:
    one = tab()
    page = one.open(app.url)
    ways(page, "address")
    page.fill("#import-address", str(tmp_path / "nowhere.csv"))
    page.keyboard.press("Enter")
    preview = page.locator("#import-preview")
    expect(preview.locator(".ft-error")).to_contain_text("nowhere.csv")
    (tmp_path / "here.csv").write_text("Question,Answer\nWhere?,In Lerwick.\n")
    page.fill("#import-address", str(tmp_path / "here.csv"))
    page.keyboard.press("Enter")
    expect(preview).to_contain_text("In Lerwick.")
    preview.get_by_text("Leave them").click()
    expect(page.locator("#import-address")).to_be_visible()
    page.check("#import [value=hub]")
    page.fill("#import-repo", "not an id")
    page.keyboard.press("Enter")
    expect(preview).to_contain_text("Looking at hub:not an id")
    expect(preview.locator(".ft-error")).to_contain_text("not an id", timeout=A_CHILD)


def test_on_a_space_no_path_is_read(start_app: Callable[..., App], tab, tmp_path: Path) -> None:
    app = start_app("space", SPACE_ID="owner/space", HOST="127.0.0.1")
    (tmp_path / "mine.csv").write_text("Question,Answer\nWhere?,A secret place.\n")
    page = tab().open(app.url)
    ways(page, "address")
    expect(page.locator("#import")).to_contain_text("Only https:// is read here")
    for address in (str(tmp_path / "mine.csv"), f"file://{tmp_path}/mine.csv", "http://127.0.0.1:1/x.csv"):
        page.fill("#import-address", address)
        page.keyboard.press("Enter")
        expect(page.locator("#import-preview .ft-error")).to_be_visible()
        expect(page.locator("#import-preview")).not_to_contain_text("A secret place")
        page.locator("#import-preview").get_by_text("Close").click()
        page.click("[data-page=import]:visible")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300,000 rows, 60 MB: long enough to be stopped on any machine."""
    path = tmp_path_factory.mktemp("large") / "large.jsonl"
    with path.open("w") as file:
        for i in range(300_000):
            file.write(json.dumps({"instruction": f"question {i}? {'why ' * 20}", "output": f"answer {i}"}) + "\n")
    return path


def test_a_large_file_is_a_job_that_survives_a_reload_and_stops(app: App, tab, large: Path) -> None:
    one = tab()
    page = one.open(app.url)
    new_project(page, "Large file")
    bring(page, large)
    preview, running = page.locator("#import-preview"), page.locator("#import-job")
    expect(preview).to_contain_text("Goes on by itself", timeout=A_CHILD)
    preview.locator("button[type=submit]").click()
    expect(running).to_contain_text("Taking rows from large.jsonl")
    expect(running).to_contain_text("rows read", timeout=A_CHILD)
    page.reload()
    page.click("#tab-data-button")
    expect(running).to_contain_text("Taking rows from large.jsonl")
    save(page, "import-job")
    running.locator("[data-do=stop]").click()
    expect(running).to_contain_text("Stopped; nothing was taken from large.jsonl", timeout=A_CHILD)
    running.locator("[data-do=close]").click()
    expect(running.locator("section")).to_have_count(0)
    page.reload()
    page.click("#tab-data-button")
    expect(page.locator(".g-start")).to_be_visible()
    expect(running.locator("section")).to_have_count(0)
    one.is_well()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_all_ways(app: App, tab, theme: str) -> None:
    one = tab(PHONE)
    page = one.open(f"{app.url}&__theme={theme}")
    for way in ("file", "paste", "hub", "address"):
        page.locator("[data-page=import-close]").click() if page.locator("#import:visible").count() else None
        page.click("#tab-data-button")
        ways(page, way)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, way
    save(page, f"import-phone-{theme}")
    one.is_well()
