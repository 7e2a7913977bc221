"""The grid as a person uses it who never lets go of the keyboard, who selects, filters and sorts, or is not alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from ft_core.conversation import Conversation, Message
from ft_core.data import audit, bulk
from ft_core.data.store import Store
from ft_core.workspace import Workspace

from .conftest import PHONE, App, Tab, save, serious

EVIL = "<img src=x onerror=\"document.title='owned'\">${document.title='owned'}"
ORDER = "order => [...document.querySelectorAll('.g-row .is-prompt')].map(n => n.textContent[0]).join('') === order"
BLOCK = 'One?\t"First line\nsecond ""line"""\nTwo?\t"a\tb"\nThree?\tthird\n'


@pytest.fixture(scope="module")
def app(start_app: Callable[..., App]) -> App:
    """Its projects are filled on disk, before a page is opened."""
    return start_app("grid")


def pair(prompt: str, answer: str, origin: str = "shop.csv row 1", system: str = "") -> Conversation:
    first = (Message("system", system),) if system else ()
    return Conversation((*first, Message("user", prompt), Message("assistant", answer)), origin)


def filled(app: App, name: str, rows: list[Conversation]) -> Path:
    project = Workspace.at(app.home).project(name, create=True)
    with Store(project.data) as store:
        store.add(rows)
    return project.data


def opened(
    app: App, tab: Callable[..., Tab], name: str, viewport: dict | None = None, more: str = ""
) -> tuple[Tab, Page]:
    one = tab(viewport) if viewport else tab()
    page = one.open(f"{app.url.partition('?')[0]}?project={name}{more}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#tab-data-button")
    page.wait_for_selector(".g-row")
    return one, page


def again(page: Page) -> None:
    page.reload()
    to_the_rows(page)


def to_the_rows(page: Page) -> None:
    page.wait_for_selector(".ft-header")  # until then the page has not chosen its tab
    page.click("#tab-data-button")
    page.wait_for_selector(".g-row")


def cell(page: Page, row: int, column: str):
    return page.locator(f".g-row[aria-rowindex='{row + 2}'] [data-col={column}]")


def paste(page: Page, text: str) -> None:
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    page.keyboard.press("Control+v")


def said(page: Page):
    return page.locator(".g-said")


def test_the_whole_loop_by_keyboard_alone(app: App, tab) -> None:
    data = filled(app, "keys", [pair(f"Question {n}?", f"Answer {n}.") for n in range(30)])
    one = tab()
    page = one.open(f"{app.url.partition('?')[0]}?project=keys")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    keys = page.keyboard
    keys.press("Alt+2")
    expect(cell(page, 0, "prompt")).to_have_text("Question 0?")
    for _ in range(60):  # from the top of the page to the search
        if page.evaluate("document.activeElement.classList.contains('g-search')"):
            break
        keys.press("Tab")
    keys.type("question 1")
    expect(page.locator(".g-found")).to_have_text("11 found")
    keys.press("Enter")  # into the rows
    expect(page.locator(".g-cell:focus")).to_have_text("Question 1?")
    keys.press("ArrowDown")
    keys.press("ArrowRight")
    keys.press("F2")
    keys.type(" More.")
    keys.press("Shift+Enter")
    keys.type("And more.")
    keys.press("Enter")
    expect(cell(page, 1, "response")).to_have_text("Answer 10. More.\nAnd more.")
    expect(cell(page, 2, "response")).to_be_focused()
    keys.type("anew")  # typing takes the place of what stood there
    keys.press("Shift+Tab")
    expect(page.locator(".is-typing textarea")).to_have_value("Question 11?")
    keys.press("Escape")
    expect(cell(page, 2, "response")).to_have_text("anew")
    keys.press("Space")
    expect(said(page)).to_contain_text("accepted already")

    keys.press("Shift+ArrowDown")
    keys.press("Shift+ArrowDown")
    expect(page.locator(".g-b-count")).to_have_text("3 selected")
    keys.press("ArrowLeft")
    expect(cell(page, 4, "status")).to_be_focused()
    keys.press("r")
    expect(said(page)).to_have_text("3 rows rejected")
    expect(page.locator(".g-row.is-rejected")).to_have_count(3)
    keys.press("Control+z")
    expect(page.locator(".g-row.is-rejected")).to_have_count(0)
    keys.press("Control+Shift+z")
    expect(page.locator(".g-row.is-rejected")).to_have_count(3)
    expect(
        page.locator(".g-bulk")
    ).to_be_hidden()  # the search was on: nothing stays selected that may be out of sight

    keys.press("Control+End")
    keys.press("ArrowRight")
    expect(cell(page, 10, "prompt")).to_be_focused()
    paste(page, BLOCK)  # over the last row, and two new ones
    expect(said(page)).to_have_text("3 rows written, 2 of them new, at the end")
    keys.press("Delete")
    expect(said(page)).to_contain_text("deleted")
    keys.press("Control+z")
    keys.press("Control+z")
    expect(said(page)).to_have_text("Undone: 1 row edited, 2 rows added")
    keys.press("Control+y")
    expect(said(page)).to_contain_text("Done again")
    with Store(data) as store:
        assert [r.conversation for r in store.rows(30, 10)] == [pair("Two?", "a\tb"), pair("Three?", "third")]
        assert store.get(20).conversation == pair("One?", 'First line\nsecond "line"')
        assert store.get(12).conversation.messages[1].content == "anew"
        assert store.counts().rejected == 3
    keys.press("Home")
    expect(page.locator(".g-cell:focus")).to_have_attribute("data-col", "select")
    keys.press("End")
    expect(page.locator(".g-cell:focus")).to_have_attribute("data-col", "split")
    keys.press("Control+Home")
    keys.press("ArrowUp")
    expect(page.locator("[role=columnheader]:focus")).to_have_count(1)
    one.is_well()


def test_selected_rows_are_one_operation_also_those_out_of_sight(app: App, tab) -> None:
    data = filled(app, "many", [pair(f"Question {n}?", f"{'Odd' if n % 2 else 'Even'} answer.") for n in range(450)])
    one, page = opened(app, tab, "many")
    cell(page, 2, "select").click()
    page.locator(".g-view").evaluate("node => { node.scrollTop = 40 * 250; }")
    expect(cell(page, 255, "prompt")).to_have_text("Question 255?")
    cell(page, 255, "select").click(modifiers=["Shift"])  # a range that begins on another page of rows
    expect(page.locator(".g-b-count")).to_have_text("254 selected")
    page.locator(".g-view").evaluate("node => { node.scrollTop = 0; }")
    expect(cell(page, 2, "select")).to_have_js_property("parentElement.ariaSelected", "true")
    expect(cell(page, 1, "select")).to_have_js_property("parentElement.ariaSelected", "false")
    cell(page, 3, "prompt").click(modifiers=["Control"])
    expect(page.locator(".g-b-count")).to_have_text("253 selected")
    page.click("[data-bulk=holdout]")
    expect(said(page)).to_have_text("253 rows held out")
    page.click(".g-said-undo")
    expect(said(page)).to_have_text("Undone: 253 rows held out")
    page.click("[data-view=all]")
    expect(page.locator(".g-bulk")).to_be_hidden()
    expect(said(page)).to_have_text("The selection ended with the filter")
    page.fill(".g-search", "odd")
    expect(page.locator(".g-found")).to_have_text("225 found")
    cell(page, 0, "prompt").focus()
    page.keyboard.press("Control+a")
    expect(page.locator(".g-b-count")).to_have_text("all 225 selected")
    page.click("[data-bulk=reject]")
    expect(said(page)).to_have_text("225 rows rejected")
    with Store(data) as store:
        assert {r.id % 2 for r in store.rows(0, 500, "rejected")} == {0} and store.counts().rejected == 225
        assert [op.what for op in store.log(1)] == ["225 rows rejected"]
    page.click("[data-act=undo]")
    page.fill(".g-search", "")
    expect(page.locator(".g-found")).to_have_text("")
    page.keyboard.press("Escape")
    page.click("[role=columnheader][data-col=select]")
    page.click(".g-bulk summary")
    page.fill(".g-b-system", "Be brief.")
    page.click("[data-bulk=system]")
    expect(said(page)).to_have_text("450 rows given a system prompt of their own")
    with Store(data) as store:
        assert {r.conversation.system for r in store.rows(0, 500)} == {"Be brief."}
    one.is_well()


ROWS = (
    ("0 Do you ship to Norway?", ""),
    ("1 When is it open?", "From nine to five, and on Saturdays until two in the afternoon."),
    ("2 Who has the price list?", "Write to jo.fisher@northmail.org and ask her for the new one."),
    ("3 How is decaf made?", "With water, at the roastery, so that the taste stays as it was."),
    ("4 Where is it?", "In Lerwick."),
)


def flagged(app: App, name: str) -> Path:
    """Five rows of two files. One has no answer, one an e-mail address; two are held out, one is to be reviewed."""
    rows = [pair(*texts, f"{'a' if n < 3 else 'b'}.csv row {n}") for n, texts in enumerate(ROWS)]
    data = filled(app, name, rows)
    with Store(data) as store:
        store.set_status([4], "candidate")
        bulk.set_split(store, [1, 5], "heldout")
        audit.bring_up(store, workers=0)
        assert {flag: n for flag, n in store.flags().items() if n} == {"empty": 1, "personal_data": 1}
    return data


def test_filters_sort_and_columns(app: App, tab) -> None:
    flagged(app, "filters")
    one, page = opened(app, tab, "filters")
    expect(page.locator("[data-view=flagged]")).to_have_text("flagged 2")
    expect(cell(page, 0, "flags")).to_have_text("empty")
    expect(cell(page, 0, "flags").locator("span")).to_have_attribute("title", "the answer in turn 2 is empty")
    header = page.locator("[role=columnheader][data-col=split]")
    for way, order in [("ascending", "12304"), ("descending", "04123"), ("none", "01234")]:
        header.click()
        expect(header).to_have_attribute("aria-sort", way)
        expect(said(page)).to_contain_text({"ascending": "smallest", "descending": "largest", "none": "came"}[way])
        page.wait_for_function(
            ORDER,
            arg=order,
        )
    page.click("[data-view=flagged]")
    expect(page.locator(".g-row")).to_have_count(2)
    page.click(".g-filter summary")
    expect(page.locator("[data-filter=flag] option")).to_have_text(
        ["flagged or not", "any flag (2)", "empty (1)", "personal data (1)"]
    )
    page.select_option("[data-filter=flag]", "empty")
    page.select_option("[data-filter=split]", "heldout")
    expect(page.locator(".g-chip")).to_have_text(["flag: empty", "split: held out"])
    expect(page.locator(".g-row")).to_have_count(1)
    page.select_option("[data-filter=source]", "b.csv")
    expect(page.locator(".g-none")).to_contain_text("No row matches.")
    page.locator(".g-none button").click()
    expect(page.locator(".g-row")).to_have_count(5)
    page.click(".g-filter summary")
    page.select_option("[data-filter=source]", "b.csv")
    page.select_option("[data-filter=status]", "candidate")
    page.fill(".g-search", "is")
    expect(page.locator(".g-found")).to_have_text("1 found")
    expect(page.locator(".g-row .is-prompt")).to_have_text("3 How is decaf made?")
    page.click("[data-drop=status]")
    expect(page.locator(".g-found")).to_have_text("2 found")

    page.click(".g-columns summary")
    page.check("[data-column=source]")
    page.uncheck("[data-column=turns]")
    expect(cell(page, 0, "source")).to_have_text("b.csv")
    again(page)
    expect(cell(page, 0, "source")).to_have_text("a.csv")
    expect(page.locator("[role=columnheader][data-col=turns]")).to_have_count(0)
    one.is_well()


def test_text_of_others_stays_text_wherever_it_stands(app: App, tab) -> None:
    data = filled(app, "hostile", [pair(EVIL, EVIL, f"{EVIL} row 1", EVIL), pair("?", "")])
    with Store(data) as store:
        audit.bring_up(store, workers=0)
    one, page = opened(app, tab, "hostile", {"width": 2400, "height": 900})
    page.click(".g-columns summary")
    for name in ("system", "source", "score"):
        page.check(f"[data-column={name}]")
    for name in ("system", "prompt", "response", "source"):
        expect(cell(page, 0, name)).to_have_text(EVIL)
    expect(cell(page, 1, "flags")).to_have_text(re.compile("."))
    with Store(data) as store, store.writing() as db:  # a reason is in our words; but nobody knows what it may quote
        db.execute("UPDATE audited SET reasons = JSON_OBJECT('template', ?1, 'too_short', ?1, 'empty', ?1)", (EVIL,))
    again(page)
    expect(page.locator(f".is-flags span[title={json.dumps(EVIL)}]")).not_to_have_count(0)
    page.click(".g-filter summary")
    page.select_option("[data-filter=source]", EVIL)
    expect(page.locator(".g-chip")).to_have_text(f"source: {EVIL}")
    page.fill(".g-search", EVIL)
    expect(page.locator(".g-found")).to_have_text("1 found")
    cell(page, 0, "prompt").dblclick()
    page.keyboard.type(f"{EVIL}{EVIL}")
    with Store(data) as store:
        store.edit(1, (Message("user", EVIL), Message("assistant", EVIL)), 1)
    page.keyboard.press("Enter")
    expect(page.locator(".g-u-mine")).to_have_text(f"{EVIL}{EVIL}")
    assert page.title() == "FT Flow"
    assert page.locator(".g img").count() == 0
    page.click("[data-keep=theirs]")
    one.is_well()


def test_two_people_in_one_row_see_both_texts_and_lose_none(app: App, tab) -> None:
    data = filled(app, "two", [pair("Open?", "Yes."), pair("Closed?", "No.")])
    one, page = opened(app, tab, "two")
    for keep, stands in (("theirs", "Theirs theirs."), ("mine", "Mine mine.")):
        expect(cell(page, 0, "response")).to_have_text("Yes.")
        cell(page, 0, "response").dblclick()
        page.keyboard.type(f"Mine {keep}.")
        with Store(data) as store:
            row = store.get(1)
            store.edit(1, pair("Open?", f"Theirs {keep}.").messages, row.version)
        page.keyboard.press("Enter")
        expect(page.locator(".g-u-what")).to_contain_text("Row 1 was changed elsewhere")
        expect(cell(page, 0, "response")).to_have_text(f"Theirs {keep}.")
        again(page)
        expect(page.locator(".g-u-mine")).to_have_text(f"Mine {keep}.")
        expect(page.locator(".g-u-theirs")).to_have_text(f"Theirs {keep}.")
        page.click(f"[data-keep={keep}]")
        expect(page.locator(".g-unsaved")).to_be_hidden()
        expect(cell(page, 0, "response")).to_have_text(stands)
        with Store(data) as store:
            assert store.get(1).conversation.messages[1].content == stands
            store.edit(1, pair("Open?", "Yes.").messages, store.get(1).version)
        again(page)
    cell(page, 1, "prompt").focus()
    with Store(data) as store:
        store.edit(2, pair("Changed.", "Changed.").messages, 1)
    paste(page, "One\tone\nTwo\ttwo")
    expect(page.locator(".g-error")).to_contain_text("Row 2 was changed by somebody else")
    expect(cell(page, 1, "prompt")).to_have_text("Changed.")
    with Store(data) as store:
        assert store.get(2).conversation == pair("Changed.", "Changed.") and store.counts().rows == 2
    paste(page, "One\tone\nTwo\ttwo")
    expect(said(page)).to_contain_text("2 rows written")
    expect(page.locator(".g-error")).to_be_hidden()
    one.is_well()


def test_what_is_typed_when_the_page_or_the_app_goes_is_kept(start_app, tab) -> None:
    app = start_app("goes")
    data = filled(app, "goes", [pair("Open?", "Yes.")])
    one, page = opened(app, tab, "goes")
    cell(page, 0, "response").dblclick()
    page.keyboard.type("Half a sent")
    again(page)
    expect(page.locator(".g-u-mine")).to_have_text("Half a sent")
    page.click("[data-keep=mine]")
    expect(cell(page, 0, "response")).to_have_text("Half a sent")
    cell(page, 0, "response").dblclick()
    page.keyboard.type("A whole sentence.")
    app.end()
    page.keyboard.press("Enter")
    expect(page.locator(".g-u-what")).to_contain_text("not saved yet")
    page.goto("about:blank")  # a page that stays is loaded anew by Gradio, some time after the app is back
    app.start()
    page.goto(f"{app.url.partition('?')[0]}?project=goes")
    to_the_rows(page)
    expect(page.locator(".g-u-mine")).to_have_text("A whole sentence.")
    page.click("[data-keep=mine]")
    expect(page.locator(".g-unsaved")).to_be_hidden()
    with Store(data) as store:
        assert store.get(1).conversation == pair("Open?", "A whole sentence.")


def test_long_texts_are_whole_where_they_are_edited_and_copied(app: App, tab) -> None:
    long = "word " * 500 + "end"
    data = filled(app, "long", [pair("Long?", long), pair("Short?", 'say "hi"\nnow')])
    one, page = opened(app, tab, "long")
    assert len(cell(page, 0, "response").text_content()) < 500
    cell(page, 0, "response").focus()
    page.keyboard.press("F2")
    expect(page.locator(".is-typing textarea")).to_have_value(long)
    page.keyboard.type("ing")
    page.keyboard.press("Enter")
    expect(said(page)).to_have_text("Row 1 saved")
    with Store(data) as store:
        assert store.get(1).conversation.messages[1].content == f"{long}ing"
    page.keyboard.press("Control+c")
    expect(said(page)).to_have_text("Cell copied")
    assert page.evaluate("navigator.clipboard.readText()") == 'say "hi"\nnow'
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Control+v")  # one text with two lines is one cell
    expect(cell(page, 0, "response")).to_have_text('say "hi"\nnow')
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+c")
    expect(said(page)).to_have_text("2 rows copied")
    assert page.evaluate("navigator.clipboard.readText()") == 'Long?\t"say ""hi""\nnow"\nShort?\t"say ""hi""\nnow"\n'
    page.keyboard.press("Escape")
    page.keyboard.press("Control+c")
    paste(page, "a\tb\tc")
    expect(page.locator(".g-error")).to_contain_text("The block has 3 columns; from here there is room for 1")
    page.click("[data-act=new]")
    expect(page.locator(".is-typing textarea")).to_be_focused()
    page.keyboard.type("New?")
    page.keyboard.press("Tab")
    page.keyboard.type("New.")
    page.keyboard.press("Enter")
    expect(page.locator(".g-row")).to_have_count(3)
    expect(cell(page, 2, "response")).to_have_text("New.")
    page.keyboard.press("Control+z")  # waits for what is still on its way
    expect(said(page)).to_have_text("Undone: row 3 edited")
    expect(cell(page, 2, "response")).to_have_text("")
    page.keyboard.press("Control+y")
    expect(said(page)).to_have_text("Done again: row 3 edited")
    with Store(data) as store:
        assert store.rows(2, 1)[0].conversation == pair("New?", "New.") and store.rows(2, 1)[0].status == "candidate"


def test_what_is_typed_while_rows_are_on_their_way_goes_where_it_was_meant(app: App, tab) -> None:
    rows = [pair("One?", "First."), pair("Two?", "Second."), pair("Three?", "Third.")]
    data = filled(app, "late", rows)
    one, page = opened(app, tab, "late")
    keys, held, late = page.keyboard, [], ["rows"]

    def hold(route: Route) -> None:
        if route.request.post_data_json["fn_name"] in late:
            held.append(route)
        else:
            route.continue_()

    page.route(re.compile("component_server"), hold)
    cell(page, 2, "status").focus()
    with page.expect_request(lambda request: '"rows"' in (request.post_data or "")):
        keys.press("r")  # a change, after which the rows are asked for again
    cell(page, 0, "prompt").focus()
    keys.press("F2")
    keys.type(" Now")
    keys.press("Tab")
    keys.type(" r")  # where nobody types, this rejects the row
    keys.press("Enter")
    keys.type("2nd")
    keys.press("Enter")
    expect(said(page)).to_have_text("Row 2 saved")
    expect(page.locator(".is-typing")).to_have_count(0)
    late.clear()
    while held:
        held.pop().continue_()
    expect(cell(page, 2, "response")).to_be_focused()
    with Store(data) as store:
        now = [pair("One? Now", " r"), pair("Two?", "2nd"), rows[2]]
        assert [row.conversation for row in store.rows(0, 3)] == now
        assert [row.status for row in store.rows(0, 3)] == ["accepted", "accepted", "rejected"]

    late.append("rows")
    cell(page, 0, "status").focus()
    with page.expect_request(lambda request: '"rows"' in (request.post_data or "")):
        keys.press("a")
    keys.press("Shift+ArrowDown")
    keys.press("Shift+ArrowDown")
    late.clear()
    while held:
        held.pop().continue_()
    expect(page.locator(".g-b-count")).to_have_text("3 selected")
    one.is_well()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_finding_of_axe(app: App, tab, theme: str) -> None:
    name = f"axe {theme}"
    flagged(app, name)
    one, page = opened(app, tab, name.replace(" ", "+"), more=f"&__theme={theme}")
    expect(page.locator("[data-view=flagged]")).to_be_visible()
    found = {"as it opens": serious(page, "main")}
    cell(page, 1, "prompt").focus()
    page.keyboard.press("Shift+ArrowDown")
    page.click(".g-bulk summary")
    found["selected"] = serious(page, "main")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.fill(".g-search", "nothing like it")
    page.click(".g-filter summary")
    page.select_option("[data-filter=split]", "heldout")
    expect(page.locator(".g-none")).to_be_visible()
    found["nothing"] = serious(page, "main")
    assert {when: what for when, what in found.items() if what} == {}
    one.is_well()


def test_how_it_looks(app: App, tab) -> None:
    flagged(app, "looks")
    one, page = opened(app, tab, "looks")
    expect(page.locator("[data-view=flagged]")).to_be_visible()
    cell(page, 1, "select").click()
    cell(page, 3, "select").click(modifiers=["Shift"])
    save(page, "grid-selected")
    one, page = opened(app, tab, "looks", PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    cell(page, 1, "select").click()
    expect(page.locator(".g-b-count")).to_have_text("1 selected")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    save(page, "grid-390")
    one.is_well()
