"""The example project: what a stranger reads first, and how it gets there."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ft_core.conversation import Conversation
from ft_core.data import example, formats
from ft_core.data.store import Store
from ft_core.render import Renderer
from ft_core.workspace import Workspace

README = example.ROWS.parent / "README.md"
FACT = re.compile(r"\d+(?:\.\d+)?|Skerry Lane|Skerry|Haar|Lantern|Longship|Simmer Dim|Low Tide|[A-Z][a-z]+days")
"""A figure, a name or the days of something."""


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    lines = example.ROWS.read_text(encoding="utf-8").splitlines()
    return [Conversation.from_dict(json.loads(line)) for line in lines]


def answers(conversation: Conversation) -> str:
    return " ".join(m.content for m in conversation.messages if m.role == "assistant")


def test_it_is_80_different_conversations_of_whole_exchanges(conversations: list[Conversation]) -> None:
    assert len(conversations) == 80 == len({c.canonical().casefold() for c in conversations})
    assert len({c.messages[0].content.casefold() for c in conversations}) == 80
    for conversation in conversations:
        roles = [m.role for m in conversation.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert sorted({len(c.messages) for c in conversations}) == [2, 4, 6]


def test_the_house_style(conversations: list[Conversation], builtin: Path) -> None:
    renderer = Renderer.of(builtin)
    for conversation in conversations:
        for message in conversation.messages:
            assert "!" not in message.content and max(message.content) < "\u2000", message.content
            if message.role == "assistant":
                assert len(renderer.ids(message.content)) <= 35, message.content
                assert len(re.findall(r"[.?](?: |$)", message.content)) <= 3, message.content
        rendered = renderer.example(conversation.with_system(example.SYSTEM))
        assert len(rendered.ids) <= 160 and rendered.learnt > 8


def test_the_readme_has_every_fact(conversations: list[Conversation]) -> None:
    readme = README.read_text(encoding="utf-8")
    assert example.SYSTEM in " ".join(readme.split())
    told = set(FACT.findall(readme))
    for conversation in conversations:
        unknown = {f for f in FACT.findall(answers(conversation)) if f not in told}
        assert not unknown, (unknown, answers(conversation))


def test_any_tool_can_import_it(workspace: Workspace) -> None:
    with Store(workspace.project("p", create=True).data) as store:
        imported = formats.import_files(store, [example.ROWS])
    assert (imported.added, imported.skipped) == (80, ())


def test_it_is_installed_once_and_ready(workspace: Workspace, conversations: list[Conversation]) -> None:
    project = example.example_project(workspace)
    assert project is not None and workspace.projects() == [example.NAME] == [project.name]
    with Store(project.data) as store:
        stats = store.stats()
        assert (stats.rows, stats.train, stats.heldout, stats.to_review) == (80, 72, 8, 0)
        assert [row.conversation for row in store.rows(limit=100)] == conversations
        assert all(c.system == example.SYSTEM for _, c, _ in store.conversations())
        trained = {f for _, c, _ in store.conversations("train") for f in FACT.findall(answers(c))}
        for _, conversation, _ in store.conversations("heldout"):  # what is asked there can have been learnt
            assert set(FACT.findall(answers(conversation))) <= trained
    assert example.example_project(workspace) is None
    assert not list(workspace.cache.iterdir())


def test_somebody_with_a_project_is_left_alone(workspace: Workspace) -> None:
    with Store(workspace.project("mine", create=True).data):
        pass
    assert example.example_project(workspace) is None
    assert workspace.projects() == ["mine"]
    other = Workspace.at(workspace.home, "guest-1")
    assert example.example_project(other).name in other.projects()


def test_two_pages_that_open_at_once_make_one(workspace: Workspace) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: example.example_project(workspace), range(8)))
    assert sum(project is not None for project in made) == 1
    with Store(workspace.project(example.NAME).data) as store:
        assert store.count() == 80
    assert not list(workspace.cache.iterdir())
