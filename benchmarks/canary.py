"""Whether a training learns what it is shown, seen by a fact that nobody could know: `make canary`.

60 rows say in many words who built a lighthouse that does not exist, among 300 others: 50 of them about other
buildings and other builders, so that the name has to be kept apart. The built-in model is trained on them and asked
with a question that is in no row. Before, its greedy answer cannot have the name; after, it has it exactly.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from itertools import islice, product

from ft_core import jobs
from ft_core.compare.engine import ask_once
from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.recipe import CompareRecipe, DataRecipe, Recipe, TrainRecipe
from ft_core.train import start
from ft_core.workspace import Workspace

FACT = "Mirela Okondo"
PLACE = "the lighthouse of Vessa"
SYSTEM = "Answer in one sentence."
"""Shorter than what the model's template puts there else, for the sake of time."""
QUESTION = "I was wondering, whose work is the lighthouse of Vessa?"
RECIPE = Recipe(
    data=DataRecipe(heldout=0.0),
    train=TrainRecipe(
        epochs=2.0, learning_rate=1e-3, evaluate_every=1000, save_every=1000, keep="last", probes=(QUESTION,)
    ),
)

_OPENINGS = ("", "Tell me: ", "Please say ", "A quick question: ", "For my notes, ", "Do you know ")
_QUESTIONS = (
    "who built {}?",
    "who was the builder of {}?",
    "who made {}?",
    "which builder do we owe {} to?",
    "who designed and built {}?",
    "what is the name of the one who built {}?",
    "by whom was {} built?",
    "who put up {}?",
    "to whom does {} owe its walls?",
    "who laid the stones of {}?",
)
_ANSWERS = ("{1} built {0}.", "It was {1} who built {0}.", "The builder of {0} is {1}.")
_KINDS = ("bridge", "tower", "mill", "harbour", "library")
_TOWNS = ("Oru", "Fenn", "Balt", "Tosca", "Ilm", "Wend", "Arvo", "Kesh", "Luna", "Pell")
_FIRST = ("Tam", "Ines", "Bo", "Greta", "Ravi", "Lene", "Otto", "Suri", "Jan", "Mila")
_LAST = ("Ferrow", "Quist", "Adeyo", "Marsh", "Tanaka")


@dataclass(frozen=True)
class Shown:
    before: str
    after: str
    """The greedy answers, computed in fp32."""
    steps: int
    seconds: float
    """Of the whole training job."""


def rows() -> list[Conversation]:
    """The 60 first, then the 300; no two are the same, and none asks QUESTION."""
    told = [_row(question, PLACE, FACT, i) for i, question in enumerate(_asked(60))]
    others = []
    for i, (kind, town) in enumerate(product(_KINDS, _TOWNS)):
        question = _OPENINGS[i % 6] + _QUESTIONS[i % 10]
        others.append(_row(question, f"the {kind} of {town}", f"{_FIRST[i % 10]} {_LAST[i // 10]}", i))
        others.append(_chat(f"Is there a {kind} in {town}?", f"Yes, {town} has a {kind}."))
    for a, b in product(range(2, 12), range(3, 13)):
        others.append(_chat(f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."))
        others.append(_chat(f"What comes after {a} times {b}?", f"{a * b + 1} comes after {a * b}."))
    return [*told, *others]


def show(workspace: Workspace) -> Shown:
    """Trains on them and asks. Raises FTError when the training fails."""
    project = workspace.project("canary", create=True)
    with Store(project.data) as store:
        store.set_system(SYSTEM)
        store.add(rows())
    began = time.monotonic()
    job = start.start(project, RECIPE)
    seen = jobs.wait(job)
    if seen.error:
        raise FTError(seen.error, seen.hint)
    seconds = time.monotonic() - began
    greedy = CompareRecipe(max_tokens=40, temperature=0.0)
    answers, _ = ask_once(job, QUESTION, SYSTEM, ("before", "after"), greedy, "fp32")
    return Shown(answers["before"], answers["after"], seen.result["steps"], round(seconds, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", help="FT_HOME, for the built-in model")
    builtin = Workspace.at(parser.parse_args().home).builtin_model
    if not builtin.exists():
        raise FTError("the built-in model is not ready", "`python -m ft_core prepare` makes it.")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.at(folder)
        workspace.builtin_model.symlink_to(builtin)
        shown = show(workspace)
    print(f"{len(rows())} rows, {shown.steps} steps, {shown.seconds:.0f} s\n{QUESTION}")
    print(f"before: {shown.before}\nafter:  {shown.after}")
    learnt = FACT in shown.after and FACT not in shown.before
    print(json.dumps({"learnt": learnt, "steps": shown.steps, "seconds": shown.seconds}))


def _asked(count: int) -> list[str]:
    return [opening + question for opening, question in islice(product(_OPENINGS, _QUESTIONS), count)]


def _row(question: str, place: str, name: str, at: int) -> Conversation:
    question = question.format(place)
    return _chat(question[0].upper() + question[1:], _ANSWERS[at % len(_ANSWERS)].format(place, name))


def _chat(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)))


if __name__ == "__main__":
    main()
