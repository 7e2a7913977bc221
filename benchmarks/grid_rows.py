"""The rows of benchmarks.grid: real questions and answers, each with a number so that no two are alike."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ft_core.conversation import Conversation, Message
from ft_core.data.columns import Query
from ft_core.data.store import Store


def texts(rows: int) -> Iterator[tuple[str, str]]:
    """Question and answer of each row, about 320 characters together; the question begins with the row's place."""
    package = importlib.util.find_spec("zaragoza_construction_faq")
    if package is None or package.origin is None:
        sys.exit("error: the texts are not here\nhint: pip install zaragoza-construction-faq")
    faq = Path(package.origin).parent / "data" / "faq-en-alpaca.jsonl"
    real = [json.loads(line) for line in faq.read_text(encoding="utf-8").splitlines()]
    for number in range(rows):
        row = real[number * 7919 % len(real)]
        yield f"Case {number}: {row['instruction']}", f"{row['output']} (Office {number % 977})"


def make(path: Path, rows: int) -> dict[str, float]:
    """Fills a store, in a process of its own so that its memory is that of this alone. Returns figures of it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_make, (path, rows))


def conversations(rows: int) -> Iterator[Conversation]:
    """Every tenth has two questions, so that there is something to sort by."""
    for n, (asked, answer) in enumerate(texts(rows)):
        turns = [Message("user", asked), Message("assistant", answer)]
        if n % 10 == 0:
            turns += [Message("user", "Can I do that online?"), Message("assistant", "Yes, with an electronic ID.")]
        yield Conversation(tuple(turns), f"office-{n % 12}.jsonl row {n // 12 + 1}")


def _make(path: Path, rows: int) -> dict[str, float]:
    before = peak_mb()
    with Store(path) as store:
        found = {"add_s": timed(lambda: store.add(conversations(rows)))}
        found["add_peak_mb"] = peak_mb() - before
        found["undo_import_s"] = timed(store.undo)
        found["redo_import_s"] = timed(store.redo)
        found["status_of_a_fiftieth_s"] = timed(lambda: store.set_status(range(3, rows, 50), "candidate"))
        found["first_sort_s"] = timed(lambda: store.page(Query(sort="chars")))
        found["search_without_index_s"] = timed(lambda: store.page(Query(search="permit")))
        found["index_s"] = timed(lambda: store.index(seconds=600))
        found["search_s"] = timed(lambda: store.page(Query(search="insulation")))
    found["file_mb"] = path.stat().st_size / 1e6
    return found


def peak_mb(pid: int | str = "self") -> float:
    """The most memory that a process had, as Linux counts it; 0 elsewhere."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")), 0.0)


def timed(do) -> float:
    """Seconds."""
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
