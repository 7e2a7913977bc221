"""Rows written by a teacher, one by one, each kept as soon as it is there.

    <job>/plan.json      the rows that are wanted, written before the first one is asked for
    <job>/results.jsonl  what became of each row

A row goes into the store first, under an origin that names job and row, and into the results second: whenever the
process is killed, the two together say which rows are missing. A resumed job asks for those, and once more for those
that were rejected.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

from .. import jobs, recipe, teacher
from ..conversation import Conversation
from ..data.store import Row, Store
from ..errors import FTError
from ..events import Event, Finished, Metric, Note, Progress, Started, Stopped
from ..recipe import BUILTIN, GenerateRecipe, Recipe
from ..teacher import Teacher
from ..workspace import Job, Project, Workspace, builtin_gguf
from . import embedded
from . import plan as planning
from .ledger import Ledger
from .plan import Plan, PlannedRow
from .writer import Exchange, Questions, Writer, Written

REMOTE_AT_ONCE = 4
"""Rows that an endpoint is asked for at once."""
FIRST_LOOK = 10
"""After this many rows of which more than half failed, the rest is not asked for."""
_EXAMPLE_POOL = 200
_EXAMPLE_BYTES = 1200
_REPORT_S = 0.5


def start(project: Project, recipe_: Recipe, api_key: str = "") -> Job:
    """Starts the writing of `recipe_.generate.rows` rows. Raises FTError when that cannot begin.

    The key goes to the child alone; a resumed job needs it again (`jobs.resume(job, {"api_key": ...})`).
    """
    wanted = recipe_.generate
    if not wanted.rows:
        raise FTError("no rows are asked for", "Say how many.")
    remote = wanted.teacher != BUILTIN
    if remote:
        teacher.persons_address(wanted.teacher)
    api_key = api_key.strip()
    if not api_key.isascii():
        raise FTError("the key of the teacher has letters that no key has", "Copy it again, without quotation marks.")
    with Store(project.data) as store:
        system = store.system or recipe_.data.system
        if not system and not store.count():
            raise FTError("there is nothing to write rows by", "Say who the assistant is, or import a few rows.")
    job = jobs.create(project, "generate", recipe_, {"teacher_is_remote": remote, "system": system})
    jobs.start(job, {"api_key": api_key} if api_key else None)
    return job


def run(job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    """Plans the rows, or finds the plan again, and writes those that are missing.

    The result has `asked` (rows wanted), `added`, `rejected` ([{row, reason}]), `prompt_tokens` and
    `completion_tokens`. Raises FTError when the teacher cannot be asked, or fails for most rows.
    """
    wanted = recipe.load(job.recipe).generate
    arguments = jobs.arguments(job)
    yield Started(wanted.rows)
    with ExitStack() as stack:
        store = stack.enter_context(Store(job.project.data))
        builtin = wanted.teacher == BUILTIN
        if builtin:
            yield Note("The built-in teacher is small: its rows have the right form and weak content. Review them.")
            url = stack.enter_context(embedded.serve(builtin_file(job.project.workspace)))
        else:
            url = teacher.persons_address(wanted.teacher)
        asked = Teacher(url, "" if builtin else wanted.model, secrets.get("api_key", ""))
        taken, examples, landed = _survey(store, job)
        writer = Writer(asked, wanted, arguments["system"], examples, taken, small=builtin)
        plan_file = job.path / "plan.json"
        if not plan_file.exists():
            yield Progress(0, wanted.rows, what="asks for topics")
            yield from _make_plan(writer, plan_file)
        ledger = stack.enter_context(Ledger(job.path / "results.jsonl", Plan.load(plan_file), landed))
        yield from _fill(job, store, writer, ledger, embedded.PARALLEL if builtin else REMOTE_AT_ONCE)
    if ledger.rejected:
        yield Note(_shortfall(ledger), "warning")
    if len(ledger.added) + len(ledger.rejected) < wanted.rows:
        yield Stopped(len(ledger.added), ledger.result())
    else:
        yield Finished(ledger.result())


def builtin_file(workspace: Workspace) -> Path:
    """The built-in model for llama.cpp: the wheel's, else the one that was made in its place (ft_core/work.py)."""
    found = builtin_gguf() or workspace.builtin_f16
    if found.exists():
        return found
    raise FTError("the built-in teacher is not installed here", "Give the address of an OpenAI-compatible endpoint.")


def _survey(store: Store, job: Job) -> tuple[Questions, tuple[Exchange, ...], set[str]]:
    """One walk over the store: the questions that are taken, examples for the teacher, and rows of this job.

    Examples are rows that a person has accepted. Those held out are not shown: a teacher would write their like, and
    the model would be tested on what it was trained on.
    """
    taken, examples, landed = Questions(), [], set()
    for row in _all_rows(store):
        origin, exchange = row.conversation.origin, _exchange(row.conversation)
        if origin.startswith(f"generated:{job.id}:"):
            landed.add(origin.rpartition(":")[2])
        if exchange is None:
            continue
        taken.claim(exchange[0])
        fits = len("".join(exchange).encode()) <= _EXAMPLE_BYTES
        if row.status == "accepted" and row.split != "heldout" and fits and len(examples) < _EXAMPLE_POOL:
            examples.append(exchange)
    return taken, tuple(examples), landed


def _all_rows(store: Store, page: int = 1000) -> Iterator[Row]:
    offset = 0
    while rows := store.rows(offset, page):
        yield from rows
        offset += len(rows)


def _exchange(conversation: Conversation) -> Exchange | None:
    """The first question and its answer."""
    for before, after in zip(conversation.messages, conversation.messages[1:]):
        if (before.role, after.role) == ("user", "assistant"):
            return before.content, after.content
    return None


def _make_plan(writer: Writer, path: Path) -> Iterator[Event]:
    wanted: GenerateRecipe = writer.recipe
    most = 12 if writer.small else 40
    topics, prompt_tokens, completion_tokens = writer.topics(min(most, max(6, wanted.rows // 4)))
    if not topics:
        yield Note("The teacher gave no list of topics that can be read; the rows will be more alike.", "warning")
    Plan(planning.rows(topics, wanted.rows, wanted.seed), prompt_tokens, completion_tokens).save(path)


def _fill(job: Job, store: Store, writer: Writer, ledger: Ledger, at_once: int) -> Iterator[Event]:
    """Asks for what is missing until it is there, the person stops it, or most rows fail (FTError)."""
    total, began, reported = len(ledger.plan.rows), time.monotonic(), 0.0
    missing = ledger.missing
    failed: list[Written] = []
    for done, written in enumerate(_written(job, writer, missing, at_once), 1):
        if written.conversation:
            origin = f"generated:{job.id}:{written.row}"
            store.add([Conversation(written.conversation.messages, origin)], "candidate", "generate", part_of=job.id)
        else:
            failed.append(written)
        ledger.record(written)
        if done >= FIRST_LOOK and 2 * len(failed) > done:
            raise FTError(f"{len(failed)} of {done} rows failed, the first one so: {failed[0].reason}", failed[0].hint)
        now = time.monotonic()
        if now - reported >= _REPORT_S or done == len(missing):
            reported = now
            step, left = len(ledger.added) + len(ledger.rejected), len(missing) - done
            what = f"{len(ledger.added)} written, {len(ledger.rejected)} rejected"
            yield Progress(step, total, round(left * (now - began) / done, 1), what)
            spent = {"prompt_tokens": ledger.prompt_tokens, "completion_tokens": ledger.completion_tokens}
            yield Metric(step, {**spent, "added": len(ledger.added), "rejected": len(ledger.rejected)})


def _written(job: Job, writer: Writer, rows: Sequence[PlannedRow], at_once: int) -> Iterator[Written]:
    """The rows as they come. After a stop no further ones are asked for; those under way are paid for, and kept."""
    waiting = deque(rows)
    running: set[Future[Written]] = set()
    with ThreadPoolExecutor(at_once) as pool:
        while True:
            while waiting and len(running) < at_once and not job.stop.exists():
                running.add(pool.submit(writer.write, waiting.popleft()))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()


def _shortfall(ledger: Ledger) -> str:
    reasons = Counter(reason.partition(":")[0] for reason in ledger.rejected.values())
    named = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    return f"{len(ledger.rejected)} of {len(ledger.plan.rows)} rows could not be written: {named}."
