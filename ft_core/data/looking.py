"""The audit's work on single conversations, in this process or in others beside it.

The others read the conversations from the store themselves and send back what they found, so little goes to and fro.
They are spawned, because a process with threads, as the page's, must not be forked.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FTError
from ..render import Counts, Renderer
from . import audited, comparing, flags
from .split import alike
from .store import Store


@dataclass(frozen=True)
class Wanted:
    """Conversations by their numbers, and what is wanted of each: its text looked at, its tokens counted."""

    conversations: tuple[int, ...]
    said: frozenset[int]
    counted: frozenset[int]


@dataclass(frozen=True)
class Found:
    conversations: tuple[int, ...]
    said: list[audited.Said]
    counted: list[audited.Counted]


@dataclass(frozen=True)
class Looker:
    """Looks at conversations of one store, with the eyes of one base model or of none."""

    store: Store
    renderer: Renderer | None

    def look(self, wanted: Wanted) -> Found:
        found = Found(wanted.conversations, [], [])
        system = self.store.system
        for number, conversation in self.store.conversations_by_number(wanted.conversations):
            if number in wanted.said:
                key = int.from_bytes(alike(conversation.canonical())[:8], "big", signed=True)
                seen = flags.text_flags(conversation)
                found.said.append(audited.Said(number, key, seen, flags.language(conversation)))
            if number in wanted.counted and self.renderer is not None:
                found.counted.append(_counted(self.renderer, number, conversation.with_system(system)))
        return found


def _counted(renderer: Renderer, number: int, conversation: Any) -> audited.Counted:
    try:
        return audited.Counted(number, renderer.counts(conversation))
    except FTError as error:
        return audited.Counted(number, Counts(0, ()), error.message)


_mine: dict[str, Any] = {}
"""Of a process that looks: its Looker, how far its comparison is, and whether it is to give up."""


@contextmanager
def processes(path: Path, renderer: Renderer | None, count: int) -> Iterator[Processes]:
    """So many processes beside this one, which end with the block."""
    spawn = multiprocessing.get_context("spawn")
    give_up = spawn.Event()
    done = {part: spawn.Value("q", 0, lock=False) for part in comparing.PARTS}
    fresh = renderer and Renderer(
        renderer.tokenizer, renderer.template, renderer.special
    )  # without what cannot travel
    pool = ProcessPoolExecutor(count, spawn, _begin, (path, fresh, give_up, done))
    try:
        yield Processes(pool, done, count)
    except BrokenProcessPool:
        raise FTError("a process of the audit was killed", "Perhaps memory ran out; what was found is kept.") from None
    finally:
        give_up.set()
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Processes:
    pool: ProcessPoolExecutor
    done: dict[str, Any]
    count: int

    def look(self, batches: Iterator[Wanted]) -> Iterator[Found]:
        """In the order in which they are done."""
        waiting: set[Future[Found]] = set()
        while True:
            while len(waiting) < 2 * self.count and (batch := next(batches, None)) is not None:
                waiting.add(self.pool.submit(_look, batch))
            if not waiting:
                return
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()

    def compare(self, ids: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """How many texts each part has read so far, together; at the end also what the parts found, by name."""
        running = {part: self.pool.submit(_compare, part, ids) for part in comparing.PARTS}
        while wait(running.values(), timeout=0.25).not_done:
            yield sum(value.value for value in self.done.values()), {}
        yield len(ids) * len(running), {part: future.result() for part, future in running.items()}


def _begin(path: Path, renderer: Renderer | None, give_up: Any, done: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _mine.update(looker=Looker(Store(path), renderer), give_up=give_up, done=done)


def _end_with_parent() -> None:
    """A pool's processes outlive a parent that was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _look(wanted: Wanted) -> Found:
    return _mine["looker"].look(wanted)


def _compare(part: str, ids: Sequence[int]) -> Any:
    def tick(done: int) -> None:
        if _mine["give_up"].is_set():
            raise FTError("the audit was stopped")
        _mine["done"][part].value = done

    tick(0)
    return comparing.PARTS[part](comparing.texts(_mine["looker"].store, ids, part), tick=tick)
