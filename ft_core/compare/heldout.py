"""Held-out loss before and after, row by row, with the interval of the difference. In fp32, whatever trained it.

The figures are total nats over all learnt tokens of the held-out rows, divided by their number, so that anybody can
recompute them with plain transformers and peft.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from .. import jobs, recipe
from ..data.freeze import read_frozen
from ..errors import FTError
from ..events import Event, Finished, Progress, Started, Stopped
from ..render import Rendered, Renderer
from ..train.base import of_trained
from ..train.loss import row_losses
from ..train.rows import side
from ..workspace import Job, write_whole
from . import apart

DRAWS = 10_000
ROWS_AT_ONCE = 4


@dataclass(frozen=True)
class RowLoss:
    """One held-out row as the training would learn it: of a pair the better answer, of texts a block, whose id is that
    of the text with which it begins. The losses are summed over its learnt tokens, in nats."""

    id: int
    tokens: int
    """Learnt tokens, at least 1."""
    before: float
    after: float


@dataclass(frozen=True)
class Heldout:
    """How well held-out answers are predicted, in nats a learnt token: lower is better."""

    before: float
    after: float
    difference: float
    """after - before: negative when training helped."""
    interval: tuple[float, float]
    """95 % interval of the difference."""
    tokens: int
    rows: tuple[RowLoss, ...]


def evaluate(job: Job) -> Heldout:
    """Measures a training job's base and tuned model on the rows it held out, and writes `report_path(job)`.

    Raises FTError when there is nothing trained, no row was held out, or the adapter does not fit the base.
    """
    steps = _evaluate(job)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def run(job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    """`evaluate` as a job of its own; its argument `job` names the training."""
    train_job = job.project.job(jobs.arguments(job)["job"])
    yield Started()
    steps = _evaluate(train_job)
    began = time.monotonic()
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            yield Finished(_result(train_job, end.value))
            return
        left = (time.monotonic() - began) / done * (total - done) if done else None
        yield Progress(done, total, left, "reading the held-out rows before and after")
        if job.stop.exists():
            yield Stopped(done)
            return


def report_path(job: Job) -> Path:
    return job.path / "report" / "heldout.json"


def bootstrap(before: np.ndarray, after: np.ndarray, tokens: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of after - before, in nats a token, from sums of nats and of tokens by row [rows].

    Rows are drawn with replacement, both sides of a row together (it is the same row that was easy or hard), 10,000
    times; each draw is a ratio of sums, as the figure itself is. Percentile method. (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13.)
    """
    generator = np.random.default_rng(seed)
    rows = len(tokens)
    drawn: list[np.ndarray] = []
    for _ in range(DRAWS // 100):  # a hundred at once: many rows would fill the memory otherwise
        # How often each row is drawn is all that the sums need.
        counts = generator.multinomial(rows, np.full(rows, 1 / rows), size=100)
        with np.errstate(invalid="ignore"):
            drawn.append(counts @ (after - before) / (counts @ tokens))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])  # a draw of nothing but empty rows has no loss
    return float(low), float(high)


def _evaluate(job: Job) -> Generator[tuple[int, int], None, Heldout]:
    """Yields (rows read, rows to read) as it goes on; every row is read twice."""
    result = jobs.view(job).result
    if not result.get("base"):
        raise FTError(f"job {job.id} has no trained model yet", "Wait until it is done, or resume it.")
    base = of_trained(result, recipe.load(job.recipe).model, job)
    ids, examples = _heldout_rows(job, Renderer.of(base))
    yield 0, 2 * len(ids)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    tuned = apart.tuned(model, job.adapter)
    before: list[tuple[float, int]] = []
    after: list[tuple[float, int]] = []
    for start in range(0, len(ids), ROWS_AT_ONCE):
        some = examples[start : start + ROWS_AT_ONCE]
        before += row_losses(model, some, pad_id=0)
        after += row_losses(tuned, some, pad_id=0)
        yield len(before) + len(after), 2 * len(ids)
    found = _summary(tuple(RowLoss(id, n, b, a) for id, (b, n), (a, _) in zip(ids, before, after)))
    report_path(job).parent.mkdir(exist_ok=True)
    write_whole(report_path(job), json.dumps(_result(job, found), indent=1))
    return found


def _heldout_rows(job: Job, renderer: Renderer) -> tuple[list[int], list[Rendered]]:
    rows = [row for row in read_frozen(job.dataset) if row.split == "heldout"]
    if not rows:
        raise FTError(f"no row was held out when {job.id} was trained", "Hold some out under Data, then train again.")
    train = recipe.load(job.recipe).train
    found = side(rows, renderer, train, [])  # the training has said what cannot be used
    if not found.rows:
        raise FTError(
            f"no held-out row has an answer within {train.max_length} tokens", "Raise max_length, and train again."
        )
    return found.ids, found.rows


def _summary(rows: tuple[RowLoss, ...]) -> Heldout:
    before, after, tokens = (np.array([getattr(row, name) for row in rows]) for name in ("before", "after", "tokens"))
    total = int(tokens.sum())
    return Heldout(
        before=float(before.sum() / total),
        after=float(after.sum() / total),
        difference=float((after - before).sum() / total),
        interval=bootstrap(before, after, tokens),
        tokens=total,
        rows=rows,
    )


def _result(job: Job, found: Heldout) -> dict[str, Any]:
    return {"job": job.id, **asdict(found)}
