"""The audit of 18,000 real-length conversations, 120 MB of text: how long it takes, and whether it finds everything.

    python -m benchmarks.audit [--rows 18000] [--megabytes 120]

The text is sentences of the documentation of the packages that are installed here, shuffled. Planted are
near-duplicates, e-mail addresses, empty answers, rows over the limit and rows held out that are trained on too.
`python -m ft_core data check` runs as a child, as anybody would run it. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import psutil

from ft_core import recipe
from ft_core.conversation import Conversation, Message
from ft_core.data.columns import Query
from ft_core.data.store import Store
from ft_core.recipe import Recipe, TrainRecipe
from ft_core.workspace import Project, Workspace, write_whole

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 8192
"""Tokens: the built-in model's context. No row but the planted ones comes near it."""
PLANTED = {"near_duplicate": 50, "personal_data": 20, "empty": 5, "cut": 10, "leak": 3}
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_PROSE = re.compile(r"[A-Z][\w',;:()\- ]{40,300}[.?]")


@lru_cache
def sentences(enough: int = 60_000) -> tuple[str, ...]:
    """Different ones, in an order that does not depend on the file system."""
    found: dict[str, None] = {}
    for package in sorted(Path(sysconfig.get_paths()["purelib"]).iterdir()):
        for path in sorted(package.rglob("*.py")):
            for text in _DOCSTRING.findall(path.read_text(encoding="utf-8", errors="replace")):
                for paragraph in text.split("\n\n"):
                    found |= dict.fromkeys(filter(_PROSE.fullmatch, _SENTENCE.split(" ".join(paragraph.split()))))
        if len(found) >= enough:
            break
    return tuple(found)


@dataclass
class Made:
    """The conversations, and the places of the planted ones by what is planted."""

    rows: list[Conversation]
    planted: dict[str, set[int]] = field(default_factory=dict)
    heldout: set[int] = field(default_factory=set)


def make(
    rows: int, characters: int, planted: dict[str, int], limit: int, pool: tuple[str, ...], seed: int = 0
) -> Made:
    """So many conversations of two to six turns of sentences from `pool`, `characters` long on average."""
    rng = random.Random(seed)
    made = Made([_conversation(rng, pool, characters) for _ in range(rows)])
    places = iter(rng.sample(range(rows), sum(planted.values()) * 2))
    made.planted = {name: {next(places) for _ in range(n)} for name, n in planted.items()}
    for name, where in made.planted.items():
        for place in sorted(where):
            made.rows[place] = _spoilt(rng, pool, name, made.rows[place], made.rows[other := next(places)], limit)
            if name == "near_duplicate" and place < other:  # the later one is the copy
                where ^= {place, other}
            if name == "leak":
                made.heldout.add(place)
    taken = set().union(*made.planted.values())
    made.heldout |= set(rng.sample(sorted(set(range(rows)) - taken - set(places)), rows // 50))
    return made


def _conversation(rng: random.Random, pool: tuple[str, ...], characters: int) -> Conversation:
    messages = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        messages.append(Message("user", " ".join(rng.sample(pool, rng.randint(2, 4)))))
        messages.append(Message("assistant", ""))
    answers = len(messages) // 2
    length = characters * rng.uniform(0.4, 1.6) - sum(len(m.content) for m in messages)
    for i in range(1, len(messages), 2):
        messages[i] = Message("assistant", _answer(rng, pool, length / answers))
    return Conversation(tuple(messages))


def _answer(rng: random.Random, pool: tuple[str, ...], characters: float) -> str:
    """Paragraphs of a few sentences."""
    said, length = [], 0
    while length < max(characters, 100):
        said.append(" ".join(rng.sample(pool, rng.randint(2, 5))))
        length += len(said[-1])
    return "\n\n".join(said)


def _spoilt(
    rng: random.Random, pool: tuple[str, ...], how: str, conversation: Conversation, other: Conversation, limit: int
) -> Conversation:
    """The conversation with what is planted in it; `other` is the one that it is near to, or the same as."""
    *rest, last = conversation.messages
    match how:
        case "near_duplicate":  # one sentence in thirty or so is another one
            words = other.messages[-1].content.split(" ")
            middle = len(words) // 2
            words[middle : middle + 8] = rng.choice(pool).split(" ")[:8]
            return Conversation((*other.messages[:-1], Message("assistant", " ".join(words))))
        case "personal_data":
            person = f"{rng.choice(('maria', 'j.smith', 'li.wei', 'o-hansen'))}{rng.randint(1, 99)}"
            middle = last.content.index(" ", len(last.content) // 2)
            text = f"{last.content[:middle]} {person}@{rng.choice(('gmail.com', 'posteo.de'))}{last.content[middle:]}"
            return Conversation((*rest, Message("assistant", text)))
        case "empty":
            return Conversation((*rest, Message("assistant", rng.choice(("", " \n")))))
        case "cut":
            return Conversation((*rest, Message("assistant", _answer(rng, pool, limit * 8))))
        case "leak":
            return other
    raise ValueError(how)


def prepare(project: Project, made: Made) -> None:
    with Store(project.data) as store:
        store.add(made.rows, who="benchmark")
        sides = ((i + 1, "heldout" if i in made.heldout else "train") for i in range(len(made.rows)))
        store.set_split(sides, 0.1, 0)
    write_whole(project.recipe, recipe.dump(Recipe(train=TrainRecipe(max_length=LIMIT))))


def check(home: str) -> tuple[float, int, dict]:
    """`data check` as a child: seconds, the most bytes that its processes have together, and its result."""
    command = [sys.executable, "-m", "ft_core", "--home", home, "--project", "audit", "--json", "data", "check"]
    began = time.monotonic()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    memory = 0
    while child.poll() is None:
        memory = max(memory, _memory(psutil.Process(child.pid)))
        time.sleep(0.25)
    seconds = time.monotonic() - began
    if child.returncode:
        raise SystemExit(f"data check ended with {child.returncode}")
    return seconds, memory, json.loads(child.stdout.read().splitlines()[-1])


def _memory(process: psutil.Process) -> int:
    """A child's child may be gone by the time it is asked."""
    try:
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _processor_s() -> float:
    """Of all children so far, and theirs: what tells more than the clock where others compute beside it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def found(project: Project) -> dict[str, set[int]]:
    with Store(project.data) as store:
        return {flag: {row.id - 1 for row in store.page(Query(flag=flag), 0, 10**6).rows} for flag in store.flags()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=18_000)
    parser.add_argument("--megabytes", type=float, default=120)
    given = parser.parse_args()
    planted = {flag: max(1, n * given.rows // 18_000) for flag, n in PLANTED.items()}
    made = make(given.rows, int(given.megabytes * 1e6 / given.rows), planted, LIMIT, sentences())
    text = sum(len(m.content) for c in made.rows for m in c.messages)
    with tempfile.TemporaryDirectory() as home:
        workspace = Workspace.at(home)
        subprocess.run([sys.executable, "-m", "ft_core", "--home", home, "prepare"], cwd=ROOT, check=True)
        project = workspace.project("audit", create=True)
        prepare(project, made)
        before = _processor_s()
        seconds, memory, result = check(home)
        spent = _processor_s() - before
        again, _, _ = check(home)
        flagged = found(project)
    missed = {flag: len(places - flagged[flag]) for flag, places in made.planted.items()}
    false = {flag: len(flagged[flag] - made.planted.get(flag, set())) for flag in flagged if flag != "duplicate"}
    print(f"{len(made.rows):,} conversations, {text / 1e6:.0f} MB of text, on {os.cpu_count()} cores")
    print(f"data check {seconds:.1f} s, {spent:.0f} s of processors, {memory / 2**20:,.0f} MB; again {again:.1f} s")
    print(f"{'flag':<16}{'planted':>8}{'missed':>8}{'besides':>8}")
    for flag in flagged:
        if flag in planted or false.get(flag):
            print(f"{flag:<16}{planted.get(flag, 0):>8}{missed.get(flag, 0):>8}{false.get(flag, 0):>8}")
    figures = {"rows": len(made.rows), "text_mb": round(text / 1e6, 1), "seconds": round(seconds, 1)}
    figures["processor_s"] = round(spent, 1)
    figures |= {"again_s": round(again, 1), "memory_mb": memory >> 20, "ready": result["ready"]}
    print(json.dumps(figures | {"missed": missed, "besides": false}))


if __name__ == "__main__":
    main()
