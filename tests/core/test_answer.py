"""One answer written anew: by the built-in teacher in a process of its own, stopped, cut off; and a row's place."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ft_core import jobs
from ft_core.conversation import Message
from ft_core.data.columns import Query
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.generate import embedded
from ft_core.generate.answer import Asking, Question, write
from ft_core.recipe import GenerateRecipe
from ft_core.workspace import Workspace
from tests.core.test_store_queries import talk
from tests.stand_ins.openai_endpoint import Endpoint, says

TURNS = (Message("system", "You are a help desk."), Message("user", "Do you ship to Norway?"))


def children() -> set[psutil.Process]:
    """The processes under this one; the browser of the whole test run may be among them."""
    return set(psutil.Process().children(recursive=True))


def test_the_builtin_teacher_answers_in_a_process_that_goes_again(workspace: Workspace) -> None:
    before = children()
    # Asked with a seed of chance; at no temperature no seed makes an answer too long.
    assert Asking().ask("1", workspace, Question(TURNS, GenerateRecipe(temperature=0.0))).strip()
    assert children() <= before


def test_a_stop_ends_it_at_once_and_the_key_is_in_no_argument(workspace: Workspace) -> None:
    with Endpoint(delay_s=60) as endpoint:
        asking, answers, before = Asking(), [], children()
        question = Question(TURNS, GenerateRecipe(teacher=endpoint.url))
        thread = threading.Thread(target=lambda: answers.append(asking.ask("1", workspace, question, "sk-mine")))
        thread.start()
        while not endpoint.asked:
            time.sleep(0.01)
        (child,) = children() - before
        assert "sk-mine" not in " ".join([*child.cmdline(), *child.environ().values()])
        assert endpoint.asked[0].key == "sk-mine"
        asking.stop("another")
        assert thread.is_alive()
        asking.stop("1")
        thread.join()
    assert answers == [""]


@pytest.mark.parametrize(
    ("text", "finish", "said"),
    [("Yes, in", "length", "cut off at 400 tokens"), ("<think>hm</think>", "stop", "answer is empty")],
)
def test_half_an_answer_is_none(workspace: Workspace, text: str, finish: str, said: str) -> None:
    with Endpoint() as endpoint:
        endpoint.always = says(text, finish)
        with pytest.raises(FTError, match=said):
            Asking().ask("1", workspace, Question(TURNS, GenerateRecipe(teacher=endpoint.url, model="first")))


def test_the_builtin_teacher_is_asked_with_another_seed_when_it_talks_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Endpoint() as endpoint:
        monkeypatch.setattr(embedded, "serve", lambda _: nullcontext(endpoint.url))
        endpoint.queue.extend([says("Yes, in", "length"), says(" "), says("Yes.")])
        assert write(Question(TURNS, GenerateRecipe(seed=7)), workspace) == "Yes."
        assert [request.body["seed"] for request in endpoint.asked] == [7, 8, 9]
        endpoint.always = says("Yes, in", "length")
        with pytest.raises(FTError, match="cut off at 400 tokens"):
            write(Question(TURNS, GenerateRecipe()), workspace)
        assert len(endpoint.asked) == 6


def test_it_gives_way_to_who_has_the_machine(workspace: Workspace) -> None:
    with jobs.machine(workspace, "train 1"), pytest.raises(FTError, match="train 1 has the machine"):
        Asking().ask("1", workspace, Question(TURNS, GenerateRecipe()))


def test_questions_come_through_as_they_were() -> None:
    call = Message("assistant", "", '{"tool_calls":[{"id":"1"}]}')
    question = Question((*TURNS, call), replace(GenerateRecipe(), temperature=0.25))
    assert Question.from_text(question.to_text("k")) == (question, "k")


def test_a_rows_place_is_where_its_page_has_it(tmp_path: Path) -> None:
    with Store(tmp_path / "data.sqlite") as store:
        store.add(talk(f"{n % 7} question", "answer") for n in range(9000))  # three blocks
        store.set_status(range(1, 9000, 3), "rejected")
        store.delete(range(4000, 4200))
        for query in (Query(), Query("rejected"), Query(search="3 q"), Query(sort="status", descending=True)):
            for at in (0, 1, 1111, store.page(query).total - 1):
                rows = store.page(query, at, 1).rows
                assert [store.place(query, row.id) for row in rows] == [at] * len(rows)
        assert store.place(Query("rejected"), 2) is None and store.place(Query(), 4100) is None
