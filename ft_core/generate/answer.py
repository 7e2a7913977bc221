"""One answer of a conversation written anew by the teacher, while a person waits.

It is asked for in a child process of its own: so it can be stopped at any moment, llama.cpp never runs inside the web
process, and its memory goes back with the answer. The built-in teacher loads in half a second, so none is kept.
"""

from __future__ import annotations

import json
import random
import subprocess
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace

from .. import jobs, recipe, teacher
from ..conversation import Message
from ..errors import FTError
from ..recipe import BUILTIN, GenerateRecipe
from ..teacher import Teacher
from ..workspace import Workspace
from . import embedded, synthesize

PATIENCE_S = 180.0
"""How long a person is made to wait at most."""
_TIMEOUT_S = 120.0
"""For one try at an endpoint."""
_BUILTIN_TRIES = 3
"""The built-in teacher talks on past any limit once in eight to thirty answers; another seed costs only seconds. An
endpoint's answer that is cut off is paid for, and tells of a limit that is too low: it is asked once."""


@dataclass(frozen=True)
class Question:
    """What the teacher answers: the turns so far, the system message among them."""

    turns: tuple[Message, ...]
    recipe: GenerateRecipe

    def to_text(self, api_key: str) -> str:
        """One line of JSON, for the child's standard input."""
        turns = [m.to_dict() for m in self.turns]
        return json.dumps({"turns": turns, "recipe": recipe.to_dict(self.recipe), "api_key": api_key})

    @classmethod
    def from_text(cls, text: str) -> tuple[Question, str]:
        """The question and the key."""
        value = json.loads(text)
        turns = tuple(map(Message.from_dict, value["turns"]))
        return cls(turns, GenerateRecipe(**value["recipe"])), value["api_key"]


def write(question: Question, workspace: Workspace, api_key: str = "") -> str:
    """The teacher's answer. Raises FTError with a sentence for each way in which it can go wrong."""
    wanted = question.recipe
    with ExitStack() as stack:
        if wanted.teacher == BUILTIN:
            url = stack.enter_context(embedded.serve(synthesize.builtin_file(workspace)))
            asked, tries = Teacher(url, timeout_s=_TIMEOUT_S, retries=0), _BUILTIN_TRIES
        else:
            url = teacher.persons_address(wanted.teacher)
            asked, tries = Teacher(url, wanted.model, api_key, _TIMEOUT_S, retries=1), 1
        for seed in range(wanted.seed, wanted.seed + tries):
            answer = asked.ask(question.turns, wanted.temperature, wanted.max_tokens, seed)
            if answer.finish_reason != "length" and answer.text.strip():
                break
    if answer.finish_reason == "length":
        raise FTError(
            f"the teacher's answer was cut off at {wanted.max_tokens} tokens",
            "Raise the longest answer under Advanced on the Generate tab, or ask again.",
        )
    if not answer.text.strip():
        raise FTError("the teacher's answer is empty", "Ask again, or take another teacher on the Generate tab.")
    return answer.text.strip()


class Asking:
    """The page's side: who waits for an answer, by a ticket that tells the askers apart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._stopped: set[str] = set()

    def ask(self, ticket: str, workspace: Workspace, question: Question, api_key: str = "") -> str:
        """Waits for the answer of a child process; '' when it was stopped. Raises FTError as `write` does."""
        builtin = question.recipe.teacher == BUILTIN
        if builtin and (holder := jobs.machine_holder(workspace)):
            raise FTError(
                f"{holder} has the machine, so the built-in teacher cannot answer now", "Ask again when it is done."
            )
        if not api_key.isascii():
            raise FTError("the key has letters that no key has", "Copy it again, without quotation marks.")
        question = replace(question, recipe=replace(question.recipe, seed=random.randrange(2**31)))
        late = FTError(f"the teacher took longer than {PATIENCE_S:g} seconds", "Ask again, or ask another one.")
        broken = FTError(
            "the process that asks the teacher ended without an answer", "Ask again; the log has the rest."
        )
        child = jobs.front_door("--home", str(workspace.home), "answer")
        with self._lock:
            self._children[ticket] = child
        try:
            return jobs.heard(child, question.to_text(api_key.strip()), PATIENCE_S, late, broken)["answer"]
        except FTError:
            if ticket in self._stopped:
                return ""
            raise
        finally:
            with self._lock:
                self._children.pop(ticket, None)
                self._stopped.discard(ticket)

    def stop(self, ticket: str) -> None:
        """Ends the child that `ticket` waits for; nothing happens when there is none."""
        with self._lock:
            if child := self._children.get(ticket):
                self._stopped.add(ticket)
                child.kill()
