"""The conversation editor beside the rows and the dialogs over them, as a person uses them; the store is the truth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ft_core import recipe
from ft_core.conversation import Conversation, Message
from ft_core.data import versions
from ft_core.data.store import Store
from ft_core.render import IGNORED, Renderer
from ft_core.workspace import Project, Workspace, write_whole
from tests.stand_ins.openai_endpoint import Endpoint, refuses, says

from .conftest import PHONE, App, save, serious

PATIENCE_MS = 60_000
"""The teacher is asked by a process of its own, which takes its time on a busy machine."""
CALL = '{"tool_calls":[{"function":{"arguments":"{\\"n\\": 1.0}","name":"look"},"id":"1","type":"function"}]}'


def talk(*texts: str, **more: str) -> Conversation:
    return Conversation(tuple(Message("assistant" if i % 2 else "user", t) for i, t in enumerate(texts)), **more)


ROWS = (
    talk("Do you ship to Norway?", "Yes, in four days."),
    talk("Is the decaf sour?", "No, it is round.", "And the blend?", "Dark coffee."),
    talk("When do you roast coffee?", "On Tuesdays.", rejected="Whenever we like."),
    Conversation(
        (Message("user", "How many mugs?"), Message("assistant", "", CALL), Message("tool", "7"),
         Message("assistant", "Seven.")),
        tools='[{"function":{"name":"look"},"type":"function"}]',
    ),
)  # fmt: skip


@pytest.fixture
def rows(app: App, request: pytest.FixtureRequest) -> Iterator[Store]:
    """The rows of a project of the test's own."""
    project = project_of(app, request)
    with Store(project.data) as store:
        store.add(ROWS)
        yield store


def project_of(app: App, request: pytest.FixtureRequest) -> Project:
    return Workspace.at(app.home).project(re.sub(r"\W+", " ", request.node.name)[:60].strip(), create=True)


def set_recipe(project: Project, **sections: dict) -> None:
    wanted = recipe.preset("Quick look")
    for name, values in sections.items():
        wanted = replace(wanted, **{name: replace(getattr(wanted, name), **values)})
    write_whole(project.recipe, recipe.dump(wanted))


def open_row(one, app: App, store: Store, row: int) -> Page:
    page = one.open(f"{app.url.partition('?')[0]}?project={store.path.parent.name}")
    page.click("#tab-data-button")
    page.locator(".g-row").nth(row).get_by_text(ROWS[row].messages[0].content).click()
    expect(page.locator(".g-d-title")).to_have_text(f"Row {row + 1}")
    return page


def turns(store: Store, id: int) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in store.get(id).conversation.messages]


def box(page: Page, turn: int):
    return page.locator(".g-turn textarea").nth(turn)


def stored(page: Page) -> None:
    expect(page.locator(".g-d-save")).to_be_hidden()


def test_a_conversation_is_rewritten_as_one_operation(app: App, tab, rows: Store) -> None:
    one = tab()
    page = open_row(one, app, rows, 1)
    was, before = turns(rows, 2), len(rows.log())
    page.get_by_label("Add a turn after turn 2").click()
    page.keyboard.type("Is it organic?")  # the new turn has the focus
    page.get_by_label("Role of turn 3").select_option("tool")
    page.get_by_label("Role of turn 3").select_option("user")
    page.get_by_label("Delete turn 5").click()
    page.get_by_label("Move turn 3 up").click()
    expect(page.get_by_label("Move turn 2 up")).to_be_focused()
    page.keyboard.press("Enter")
    box(page, 1).fill("Is the decaf sour at all?")
    assert turns(rows, 2) == was  # nothing is stored on the way
    page.click("[data-act=save]")
    stored(page)
    now = [("user", "Is it organic?"), ("user", "Is the decaf sour at all?"), ("assistant", "No, it is round."),
           ("user", "And the blend?")]  # fmt: skip
    assert turns(rows, 2) == now
    assert len(rows.log()) == before + 1
    page.click("[data-act=undo]")
    expect(box(page, 0)).to_have_value("Is the decaf sour?")
    assert turns(rows, 2) == was
    one.is_well()


def test_leaving_saves_and_what_is_missing_is_said(app: App, tab, rows: Store) -> None:
    one = tab()
    page = open_row(one, app, rows, 0)
    expect(page.locator(".g-d-place")).to_have_text("row 1 of 4 in this view")
    box(page, 1).fill("Yes, in five days.")
    page.keyboard.press("Alt+ArrowDown")
    expect(page.locator(".g-d-title")).to_have_text("Row 2")
    assert turns(rows, 1)[1] == ("assistant", "Yes, in five days.")
    page.get_by_role("button", name="Add a turn", exact=True).click()
    page.get_by_label("Next row").click()
    expect(page.locator(".g-d-error")).to_contain_text("The new turn 5 (user) is empty.")
    rows.add([Conversation((Message("user", "Hello?"), Message("assistant", "Hello.")))])
    expect(page.locator(".g-row")).to_have_count(5)
    expect(page.locator(".g-d-place")).to_have_text("row 2 of 5 in this view")  # the row was read anew
    expect(page.locator(".g-d-error")).to_contain_text("The new turn 5 (user) is empty.")
    expect(page.locator(".g-d-title")).to_have_text("Row 2")
    page.keyboard.type("Thanks!")
    page.locator(".g-row").nth(0).get_by_text("Do you ship").click()
    expect(page.locator(".g-d-title")).to_have_text("Row 1")
    assert turns(rows, 2)[-1] == ("user", "Thanks!")
    box(page, 0).fill("Norway?")
    page.keyboard.press("Escape")
    expect(page.locator(".g-drawer")).to_be_hidden()
    assert turns(rows, 1)[0] == ("user", "Norway?")
    one.is_well()


def test_two_tabs_on_one_row_are_shown_both(app: App, tab, rows: Store) -> None:
    one, other = tab(), tab()
    page, there = open_row(one, app, rows, 0), open_row(other, app, rows, 0)
    box(page, 1).fill("Mine.")
    for text, keep, is_kept in (("Theirs.", "Keep theirs", "Theirs."), ("Theirs again.", "Keep mine", "Mine!")):
        box(there, 1).fill(text)
        there.click("[data-act=save]")
        stored(there)
        page.click("[data-act=save]")
        conflict = page.get_by_label("Two versions of this row")
        expect(conflict.locator(".g-d-theirs")).to_contain_text(text)
        expect(conflict.locator(".g-d-mine")).to_contain_text("Mine")
        assert turns(rows, 1)[1] == ("assistant", text)
        page.get_by_label("Next row").click()  # not before it is decided
        expect(page.locator(".g-d-title")).to_have_text("Row 1")
        conflict.get_by_role("button", name=keep).click()
        expect(conflict).to_be_hidden()
        stored(page)
        expect(box(page, 1)).to_have_value(is_kept)
        assert turns(rows, 1)[1] == ("assistant", is_kept)
        box(page, 1).fill("Mine!")


def test_the_tokens_follow_the_typing_and_the_limit(app: App, tab, rows: Store, builtin: Path, request) -> None:
    set_recipe(project_of(app, request), train={"max_length": 48})
    one = tab()
    page = open_row(one, app, rows, 0)
    answer = "Yes, in four days, and the postage is six pounds for every parcel that we send."
    box(page, 1).fill(answer)
    expect(page.locator(".g-d-tokens")).to_contain_text("every parcel")
    said = (Message("user", "Do you ship to Norway?"), Message("assistant", answer))
    renderer = Renderer.of(builtin)
    whole, kept = renderer.example(Conversation(said)), renderer.example(Conversation(said), 48)

    def learnt(example) -> str:
        ids = [id for id, label in zip(example.ids, example.labels) if label != IGNORED]
        return renderer.tokenizer.decode(ids, skip_special_tokens=False)

    assert "".join(page.locator(".g-d-tokens mark").all_text_contents()) == learnt(whole)
    assert "".join(page.locator(".g-d-tokens > mark").all_text_contents()) == learnt(kept)  # those in <s> are cut
    assert "cut here, at 48 tokens" in page.locator(".g-d-tokens").inner_text()
    expect(page.locator(".g-d-tokens-of")).to_have_text(f"{len(whole.ids)} of 48 tokens")
    expect(page.locator(".g-d-count")).to_contain_text(f"{kept.cut} tokens cut off")
    assert turns(rows, 1)[1] == ("assistant", "Yes, in four days.")
    page.click("[data-act=discard]")
    expect(box(page, 1)).to_have_value("Yes, in four days.")
    expect(page.locator(".g-d-tokens s")).to_have_count(0)
    one.is_well()


def test_an_answer_is_written_anew_and_taken_or_left(app: App, tab, rows: Store, request) -> None:
    one = tab()
    with Endpoint() as endpoint:
        set_recipe(project_of(app, request), generate={"teacher": endpoint.url, "model": "first"})
        rows.set_system("You are the help desk.")
        page = open_row(one, app, rows, 1)
        second = page.locator(".g-turn").nth(3)
        endpoint.queue.extend([says("Of Brazil."), refuses(401, "no"), says("Of Peru.")])
        second.get_by_role("button", name="Write this answer anew").click()
        expect(second.locator(".g-t-new")).to_have_text("Of Brazil.", timeout=PATIENCE_MS)
        asked = endpoint.asked[0].body["messages"]
        assert [m["content"] for m in asked] == ["You are the help desk.", *[t for _, t in turns(rows, 2)[:3]]]
        expect(box(page, 3)).to_have_value("Dark coffee.")
        second.get_by_role("button", name="Leave").click()
        second.get_by_role("button", name="Write this answer anew").click()
        expect(second.get_by_role("alert")).to_contain_text("wants a key", timeout=PATIENCE_MS)
        second.get_by_label("Key of the teacher").fill("sk-mine")
        second.get_by_role("button", name="Ask again").click()
        expect(second.locator(".g-t-new")).to_have_text("Of Peru.", timeout=PATIENCE_MS)
        assert endpoint.asked[-1].key == "sk-mine"
        second.get_by_role("button", name="Take").click()
        expect(box(page, 3)).to_have_value("Of Peru.")
        assert turns(rows, 2)[3] == ("assistant", "Dark coffee.")
        page.click("[data-act=save]")
        stored(page)
        assert turns(rows, 2)[3] == ("assistant", "Of Peru.")
        endpoint.delay_s = 60
        second.get_by_role("button", name="Write this answer anew").click()
        expect(second.get_by_role("button", name="Stop")).to_be_focused()
        reject = page.get_by_role("button", name="Reject", exact=True)
        reject.click()  # the page goes on meanwhile
        expect(reject).to_have_attribute("aria-pressed", "true")
        second.get_by_role("button", name="Stop").click()
        expect(second.get_by_role("button", name="Write this answer anew")).to_be_visible()
    held = [p for p in app.home.rglob("*") if p.is_file() and b"sk-mine" in p.read_bytes()]
    assert held == []
    one.is_well()


def test_worse_answers_and_calls_are_kept(app: App, tab, rows: Store) -> None:
    one = tab()
    page = open_row(one, app, rows, 2)
    worse = page.get_by_label("worse answer").locator("textarea")
    expect(worse).to_have_value("Whenever we like.")
    worse.fill("Now and then.")
    page.get_by_label("Next row").click()
    expect(page.locator(".g-d-title")).to_have_text("Row 4")
    assert rows.get(3).conversation.rejected == "Now and then."
    expect(page.locator(".g-t-more")).to_contain_text('"name": "look"')
    expect(page.get_by_label("Role of turn 2")).to_be_disabled()
    box(page, 3).fill("Seven mugs.")
    page.keyboard.press("Control+Enter")
    stored(page)
    last = (*ROWS[3].messages[:3], Message("assistant", "Seven mugs."))
    assert rows.get(4).conversation == replace(ROWS[3], messages=last)
    page.keyboard.press("Alt+ArrowUp")
    page.get_by_label("Delete the worse answer").click()
    page.click("[data-act=save]")
    stored(page)
    assert rows.get(3).conversation == replace(ROWS[2], rejected="")
    one.is_well()


def test_rows_are_judged_copied_and_deleted_one_after_the_other(app: App, tab, rows: Store) -> None:
    rows.set_status([1, 2, 3, 4], "candidate")
    one = tab()
    page = open_row(one, app, rows, 0)
    page.click("[data-view=review]")
    page.locator(".g-row").first.get_by_text("Do you ship").click()
    expect(page.locator(".g-d-place")).to_have_text("row 1 of 4 in this view")
    page.get_by_role("button", name="Accept").first.click()
    expect(page.locator(".g-d-place")).to_have_text("no longer in this view")
    page.locator(".g-d-title").focus()
    page.keyboard.press("j")
    expect(page.locator(".g-d-title")).to_have_text("Row 2")
    expect(page.locator(".g-d-place")).to_have_text("row 1 of 3 in this view")
    page.locator(".g-drawer").get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(".g-d-title")).to_have_text("Row 3")
    page.locator(".g-drawer").get_by_role("button", name="Duplicate").click()
    expect(page.locator(".g-d-title")).to_have_text("Row 5")
    assert rows.get(5).conversation == ROWS[2]
    assert [r.id for r in rows.rows(view="review")] == [3, 4, 5]
    one.is_well()


def open_dialog(page: Page, name: str) -> None:
    page.locator(".g-bar summary", has_text="More").click()
    page.locator(".g-bar").get_by_role("button", name=name).click()


def test_replace_shows_what_changes_and_is_undone_at_once(app: App, tab, rows: Store) -> None:
    one = tab()
    page = open_row(one, app, rows, 0)
    page.keyboard.press("Escape")
    open_dialog(page, "Find and replace")
    dialog = page.get_by_role("dialog", name="Find and replace")
    dialog.get_by_label("Find").fill("COFFEE")
    expect(dialog.get_by_role("status")).to_have_text("Nothing is found, or nothing would change.")
    dialog.get_by_label("Capital and small letters differ").uncheck()
    dialog.get_by_label("Replace by").fill("<b>tea</b>")
    expect(dialog.get_by_role("status")).to_have_text("2 places in 2 rows")
    expect(dialog.locator("article").nth(1)).to_contain_text("When do you roast coffee<b>tea</b>?")
    assert dialog.locator("article del").all_inner_texts() == ["coffee", "coffee"]
    dialog.get_by_label("In which turns").select_option("assistant")
    expect(dialog.get_by_role("status")).to_have_text("1 place in 1 row")
    dialog.get_by_label("In which turns").select_option("")
    dialog.get_by_label("Pattern").check()
    dialog.get_by_label("Find").fill("(cof")
    expect(dialog.get_by_role("alert")).to_contain_text("The pattern cannot be read")
    dialog.get_by_label("Find").fill(r"(cof)fee\b")
    dialog.get_by_label("Replace by").fill(r"\1-\1")
    dialog.get_by_role("button", name="Replace in 2 rows").click()
    expect(dialog).to_be_hidden()
    assert turns(rows, 3)[0] == ("user", "When do you roast cof-cof?")
    assert turns(rows, 2)[3] == ("assistant", "Dark cof-cof.")
    expect(page.locator(".g-row").nth(2)).to_contain_text("roast cof-cof?")
    page.click("[data-act=undo]")
    expect(page.locator(".g-row").nth(2)).to_contain_text("roast coffee?")
    assert [rows.get(id).conversation for id in (2, 3)] == list(ROWS[1:3])
    one.is_well()


def test_versions_are_named_compared_and_gone_back_to(app: App, tab, rows: Store) -> None:
    one = tab()
    page = open_row(one, app, rows, 0)
    open_dialog(page, "Versions and log")
    dialog = page.get_by_role("dialog", name="Versions")
    dialog.get_by_role("button", name="Name the rows").click()
    expect(dialog.get_by_role("alert")).to_contain_text("needs a name")
    dialog.get_by_label("Name of the new version").fill("first <i>")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("list", name="Versions")).to_contain_text("first <i>")
    expect(dialog.get_by_role("list", name="Versions")).to_contain_text("as the rows are now")
    page.keyboard.press("Escape")
    box(page, 1).fill("Yes, in nine days.")
    page.click("[data-act=save]")
    stored(page)
    rows.set_system("Be brief.")
    rows.set_status([2], "rejected")
    versions.name(rows, "second")
    rows.delete([4])
    open_dialog(page, "Versions and log")
    dialog.get_by_role("button", name="What changed since: first <i>").click()
    expect(dialog.locator(".g-x-sum")).to_have_text("Rows: 1 removed, 2 changed")
    changes = dialog.get_by_label("Rows that differ")
    expect(changes).to_contain_text("System prompt")
    assert changes.locator("del").all_inner_texts()[:3] == ["four", "accepted", "How many mugs?"]
    assert changes.locator("ins").all_inner_texts() == ["Be brief.", "nine", "rejected"]
    dialog.get_by_label("To version").select_option("second")
    expect(dialog.locator(".g-x-sum")).to_have_text("Rows: 2 changed")
    dialog.get_by_role("button", name="Go back to it: first <i>").click()
    expect(dialog.locator(".g-v-said")).to_contain_text("Back to version first <i>")
    assert (turns(rows, 1)[1][1], rows.system, rows.count()) == ("Yes, in four days.", "", 4)
    dialog.get_by_text("Everything that was done").click()
    expect(dialog.locator("tbody tr").first).to_contain_text("back to version first <i>")
    page.keyboard.press("Escape")
    expect(box(page, 1)).to_have_value("Yes, in four days.")
    page.click("[data-act=undo]")
    expect(box(page, 1)).to_have_value("Yes, in nine days.")
    one.is_well()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_serious_for_axe(app: App, tab, rows: Store, theme: str) -> None:
    one = tab(PHONE if theme == "dark" else {"width": 1280, "height": 900})
    page = open_row(one, app, rows, 2)
    page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
    box(page, 1).fill("On Tuesdays, mostly.")
    expect(page.locator(".g-d-save")).to_be_visible()
    assert serious(page, ".g-drawer") == []
    save(page, f"drawer-{theme}")
    if theme == "dark":
        assert page.locator(".g-drawer").bounding_box()["width"] == PHONE["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.get_by_role("button", name="Close").click()
    for name, title in (("Find and replace", "g-replace"), ("Versions and log", "g-versions")):
        open_dialog(page, name)
        if title == "g-replace":
            page.locator("[name=find]").fill("coffee")
            expect(page.locator(".g-replace article").first).to_be_visible()
        expect(page.locator(f".{title}")).to_be_visible()
        assert serious(page, f".{title}") == []
        save(page, f"{title}-{theme}")
        page.keyboard.press("Escape")
        expect(page.locator(f".{title}")).to_be_hidden()
    page.locator(".ft-header").click()
    page.keyboard.press("?")
    assert serious(page, "#keys") == []
