"""The engine as a long-lived process: one JSON request a line on stdin, answers a line each on stdout.

    {"id": 1, "op": "ask", "chats": {"before": [messages], "after": [messages]}, "precision": "auto",
     "max_tokens": 200, "temperature": 0.7, "top_p": 0.95, "seed": 0}
    {"id": 2, "op": "proof", "precision": "auto"}
    {"id": 1, "op": "cancel"}
    {"op": "bye"}

    {"id": 1, "side": "before", "text": "so far", "tokens": 3, "tokens_per_s": 21.0, "done": false}
    {"id": 2, "max_logit_difference": 0.0, "base_fingerprint": "...", ...}
    {"id": 1, "end": true}          or          {"id": 1, "error": "what", "hint": "what to do"}

Requests are answered in turn. The process ends with its standard input, after ten idle minutes, and, while it idles,
as soon as other work takes the machine, so that its memory comes back.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any, BinaryIO

from .. import jobs
from ..conversation import Message
from ..errors import FTError
from ..recipe import CompareRecipe
from ..workspace import Job
from .engine import Engine

IDLE_S = 600.0
LOOK_EVERY_S = 0.5
"""How often it is looked whether other work has taken the machine."""

_WORK = {"train": "training", "generate": "writing rows", "evaluate": "an evaluation", "export": "an export"}


def main(job: Job, idle_s: float = IDLE_S) -> int:
    """Answers on this process's standard input and output until it is time to leave. Returns the exit status."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    # Not sys.stdin: the interpreter closes that when it ends, and would wait for the thread that reads it.
    requests = open(os.dup(0), "rb")
    server = Server(job, answers)
    threading.Thread(target=server.listen, args=(requests,), daemon=True).start()
    with suppress(BrokenPipeError):  # who asked is gone
        server.serve(idle_s)
        answers.close()
    return 0


class Server:
    """Two threads: one listens, so that a cancel is heard in mid-answer; the other answers."""

    def __init__(self, job: Job, answers: BinaryIO):
        self.job = job
        self._answers = answers
        self._requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stops: dict[int, threading.Event] = {}
        self._engine: Engine | None = None
        self._precision = ""

    def listen(self, lines: BinaryIO) -> None:
        for line in lines:
            request = json.loads(line)
            if request["op"] == "cancel":
                self._stop_of(request["id"]).set()
            elif request["op"] == "bye":
                break
            else:
                self._stop_of(request["id"])  # so that it is stopped, too, when the input ends
                self._requests.put(request)
        for stop in list(self._stops.values()):
            stop.set()
        self._requests.put({"op": "bye"})

    def serve(self, idle_s: float) -> None:
        """Returns when it is time to leave."""
        idle_since = time.monotonic()
        while True:
            try:
                request = self._requests.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                if time.monotonic() - idle_since > idle_s or self._holder():
                    return
                continue
            if request["op"] == "bye":
                return
            self._answer(request)
            idle_since = time.monotonic()

    def _answer(self, request: dict[str, Any]) -> None:
        id = request["id"]
        try:
            self._give_way()
            engine = self._engine_in(request["precision"])
            if request["op"] == "proof":
                self._say(id, asdict(engine.proof()))
            else:
                self._stream(engine, request)
            self._say(id, {"end": True})
        except FTError as error:
            self._say(id, {"error": error.message, "hint": error.hint})
        finally:
            self._stops.pop(id, None)

    def _stream(self, engine: Engine, request: dict[str, Any]) -> None:
        chats = {side: tuple(map(Message.from_dict, turns)) for side, turns in request["chats"].items()}
        sampling = CompareRecipe(**{k: request[k] for k in ("max_tokens", "temperature", "top_p", "seed")})
        looked = time.monotonic()
        for delta in engine.stream(chats, sampling, self._stop_of(request["id"])):
            self._say(request["id"], asdict(delta))
            if time.monotonic() - looked > LOOK_EVERY_S:
                self._give_way()
                looked = time.monotonic()

    def _engine_in(self, precision: str) -> Engine:
        if self._engine is None or self._precision != precision:
            self._engine = None  # the old one's memory goes first
            self._engine, self._precision = Engine.of(self.job, precision), precision
        return self._engine

    def _give_way(self) -> None:
        """Raises FTError when other work has the machine."""
        if holder := self._holder():
            work = _WORK.get(holder.split()[0], holder)
            raise FTError(f"{work} has the machine, so the models cannot answer now", "Ask again when it is done.")

    def _holder(self) -> str:
        return jobs.machine_holder(self.job.project.workspace)

    def _stop_of(self, id: int) -> threading.Event:
        return self._stops.setdefault(id, threading.Event())  # a cancel may come before what it cancels

    def _say(self, id: int, what: dict[str, Any]) -> None:
        self._answers.write(json.dumps({"id": id, **what}, ensure_ascii=False).encode() + b"\n")
        self._answers.flush()
