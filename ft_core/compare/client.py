"""The page's side of the engine: starts the child that answers, asks it, hears it out. No torch here.

    engines = Engines()                       # one for the app
    for delta in engines.of(job).ask({"before": messages, "after": messages}, recipe.compare):
        ...                                   # delta.side, delta.text (so far), delta.tokens, delta.done

There is one child at a time, because a model takes memory: requests are answered one after the other, from however
many threads they come, and asking about another job ends the child of the one before. A child that has idled away is
started again without a word.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ft_core import jobs, recipe
from ft_core.errors import FTError
from ft_core.recipe import CompareRecipe
from ft_core.workspace import Job

from .exchange import Chats, Delta, Proof

CLOSE_S = 10.0
"""How long a child that was told to leave may take before it is ended."""


class Engines:
    """The engine process of one app, and whose turn it is."""

    def __init__(self) -> None:
        self._turn = threading.Lock()  # held while a request is answered
        self._asked: set[_Request] = set()
        self._child: _Child | None = None
        self._ids = itertools.count(1)

    def of(self, job: Job) -> EngineClient:
        """The two models of a training job: its base and what it was tuned to."""
        return EngineClient(job, self)

    def cancel(self, asker: str = "") -> None:
        """Ends what `asker` asked for, whether it is being answered or still waits. Returns at once."""
        for request in list(self._asked):  # other threads change the set
            if request.asker == asker:
                self._cancel(request)

    def close(self) -> None:
        """Ends the child and what it was answering."""
        for request in list(self._asked):
            self._cancel(request)
        self._leave()  # without waiting for the turn: whoever holds it may have stopped listening

    def request(self, job: Job, body: dict[str, Any], asker: str) -> Iterator[dict[str, Any]]:
        """What the child says to `body`, line by line, once it is its turn. Raises FTError with the child's words."""
        request = _Request(next(self._ids), asker)
        self._asked.add(request)
        try:
            with self._its_turn(request) as mine:
                if mine:
                    yield from self._answer(job, request, {**body, "id": request.id})
        finally:
            self._asked.discard(request)

    @contextmanager
    def _its_turn(self, request: _Request) -> Iterator[bool]:
        while not self._turn.acquire(timeout=0.1):
            if request.cancelled.is_set():
                yield False
                return
        try:
            yield not request.cancelled.is_set()
        finally:
            self._turn.release()

    def _answer(self, job: Job, request: _Request, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for attempt in (1, 2):
            child = self._child_of(job)
            heard, ended = False, False
            try:
                for line in child.ask(body):
                    heard = True
                    if "error" in line:
                        ended = True
                        raise FTError(line["error"], line["hint"])
                    if line.get("end"):
                        ended = True
                        return
                    yield line
            finally:
                if not ended:
                    child.send({"op": "cancel", "id": request.id})
            if request.cancelled.is_set():
                return
            # The child is gone. It may have idled away just as it was asked: then another one is asked, once.
            self._child = None
            if child.process.wait() != 0 or heard or attempt == 2:
                raise FTError(
                    "the process that answers ended without a word: it was killed, or memory ran out",
                    f"Ask again and it starts anew. Its last words are in {job.path.name}/{LOG}.",
                )

    def _child_of(self, job: Job) -> _Child:
        if self._child and (self._child.job != job or self._child.process.poll() is not None):
            self._leave()
        if self._child is None:
            self._child = _Child(job)
        return self._child

    def _leave(self) -> None:
        child, self._child = self._child, None
        if child:
            child.close()

    def _cancel(self, request: _Request) -> None:
        request.cancelled.set()
        if child := self._child:
            child.send({"op": "cancel", "id": request.id})


@dataclass(frozen=True)
class EngineClient:
    """Asks about one training job. Safe to use from several threads; each waits for its turn."""

    job: Job
    engines: Engines

    def ask(self, chats: Chats, sampling: CompareRecipe, precision: str = "auto", asker: str = "") -> Iterator[Delta]:
        """The answers of the sides in `chats`, as they come, at most about twelve times a second a side.

        Closing the iterator, or `cancel` with the same `asker` (whatever tells pages apart), ends the answer.
        `precision` is fp32, bf16, fp16 or auto, which is what the job was trained in. Raises FTError when there is no
        trained model, when training has the machine, when the child dies.
        """
        turns = {side: [m.to_dict() for m in messages] for side, messages in chats.items()}
        body = {"op": "ask", "chats": turns, "precision": precision, **recipe.to_dict(sampling)}
        for line in self.engines.request(self.job, body, asker):
            yield Delta(**line)

    def cancel(self, asker: str = "") -> None:
        self.engines.cancel(asker)

    def proof(self, precision: str = "auto", asker: str = "") -> Proof:
        """That before is before. Raises FTError as `ask` does, and when it was cancelled."""
        for line in self.engines.request(self.job, {"op": "proof", "precision": precision}, asker):
            return Proof(**line)
        raise FTError("the proof was cancelled before it was made", "Ask for it again.")

    def close(self) -> None:
        self.engines.close()


LOG = "engine.log"
"""Where a child's stderr goes, in the job's folder."""


class _Request:
    def __init__(self, id: int, asker: str):
        self.id, self.asker = id, asker
        self.cancelled = threading.Event()


class _Child:
    """One engine process. It ends with this one, because its standard input does."""

    def __init__(self, job: Job):
        self.job = job
        self._writing = threading.Lock()
        home = job.project.workspace.home
        with (job.path / LOG).open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ft_core", "--home", str(home), "compare-engine", str(job.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the app's terminal is the app's to hear
                env=jobs.child_environment(),
            )

    def ask(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Its lines for this request; they end early when the process does."""
        self.send(body)
        for line in self.process.stdout:
            answer = json.loads(line)
            if answer.pop("id") == body["id"]:  # others are the rest of an answer that nobody waits for
                yield answer

    def send(self, body: dict[str, Any]) -> None:
        """Nothing happens when the process is gone: its silence tells."""
        with self._writing, suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(json.dumps(body).encode() + b"\n")
            self.process.stdin.flush()

    def close(self) -> None:
        with self._writing, suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
