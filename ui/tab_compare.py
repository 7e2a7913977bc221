"""Compare: one question, both models, at once. The state of a conversation is the page's own; the rest is on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from ft_core import about, recipe
from ft_core.compare import start as measuring
from ft_core.compare.client import EngineClient, Engines
from ft_core.compare.exchange import SIDES, Chats
from ft_core.conversation import Message
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import JobView
from ft_core.recipe import CompareRecipe
from ft_core.train import models
from ft_core.workspace import Job, Project, write_whole

from . import knobs
from .errors import told
from .frame import Frame, Recipes
from .panel import draw, panel
from .run_view import title
from .runs import usable

_CHIPS = 5
_YIELD_S = 0.085
"""Time between two pictures of an answer under way: a dozen a second reads as flowing and costs a tenth of a core."""
_KNOBS = ("max_tokens", "temperature", "top_p", "seed")


@dataclass(frozen=True)
class Answer:
    """What one side has said so far."""

    text: str = ""
    tokens: int = 0
    tokens_per_s: float = 0.0
    done: bool = False


@dataclass(frozen=True)
class Turn:
    """One question and both answers; `expected` is what a held-out row answers."""

    asked: str
    before: Answer = Answer()
    after: Answer = Answer()
    expected: str = ""


@dataclass
class Talk:
    """The conversation of a page. `asked` counts what was asked and cleared: an answer that is drawn belongs to the
    newest, and what still comes of an earlier one is for nobody."""

    turns: tuple[Turn, ...] = ()
    asked: int = 0

    def begin(self, turns: tuple[Turn, ...] = ()) -> int:
        self.turns = turns
        self.asked += 1
        return self.asked


class CompareTab:
    def __init__(self, frame: Frame, recipes: Recipes, engines: Engines):
        self.frame, self.recipes, self.engines = frame, recipes, engines
        self.talks = gr.State(Talk())
        self.run = self.at = gr.Textbox(visible="hidden", elem_id="compared-run")
        self.sides = panel(elem_id="sides")
        self.talk = panel(elem_id="talk")
        self.notice = panel(elem_id="compare-notice")
        with gr.Column(visible=False) as self.dialogue:
            self._dialogue()
        self.numbers = panel(elem_id="numbers")
        self.shown = [self.talks, self.run, self.sides, self.talk, self.chips, self.system, *self.knobs.values(),
                      self.numbers, self.notice, self.send, self.stop, self.box, self.dialogue]  # fmt: skip
        self._listen()

    def _dialogue(self) -> None:
        self.chips = panel(elem_id="chips")
        with gr.Row(elem_classes="ft-ask", elem_id="ask-row"):
            self.box = gr.Textbox(placeholder="Ask both …", show_label=False, label="Ask both", lines=1, max_lines=6,
                                  container=False, elem_id="ask", scale=1)  # fmt: skip
            self.send = gr.Button("Ask both", variant="primary", elem_id="send", scale=0)
            self.stop = gr.Button("Stop", elem_id="stop-answer", visible=False, scale=0)
        with gr.Row(elem_classes="ft-small-row"):
            self.again = gr.Button("Retry", size="sm", elem_id="retry", scale=0)
            self.clear = gr.Button("Clear", size="sm", elem_id="clear", scale=0)
        with gr.Accordion("System prompt and sampling", open=False, elem_id="sampling"):
            self.system = gr.Textbox(label="System prompt of both", lines=2, max_lines=8, elem_id="compare-system")
            with gr.Row():
                self.knobs = {name: knobs.knob(CompareRecipe, name) for name in _KNOBS}

    def _listen(self) -> None:
        tell = told(self.notice)
        name = self.frame.project
        given = {name, self.run, self.system, self.talks, self.box, *self.knobs.values()}
        talk = [self.talk, self.sides, self.notice, self.box, self.send, self.stop, self.chips, self.run,
                self.dialogue]  # fmt: skip
        streamed = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 4}
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        self.streams = [
            gr.on([self.box.submit, self.send.click], tell(self.ask), given, talk, **streamed),
            self.chips.do(tell(self.ask_chip), given, talk, **streamed),
            self.again.click(tell(self.retry), given, talk, **streamed),
        ]
        self.stop.click(tell(self.cancel), None, [self.notice], **quiet)
        # The browser listens to an answer no more before it is told of the empty conversation.
        self.clear.click(None, cancels=self.streams)
        self.sides.do(None, cancels=self.streams)
        self.clear.click(tell(self.empty), [name, self.talks], talk, **quiet)
        self.sides.do(tell(self.choose), [name, self.talks], [*talk, self.numbers], **quiet)
        self.numbers.do(tell(self.measure), [name, self.run], [self.numbers, self.notice], **quiet)

    # --- what it shows

    def show(self, project: Project) -> dict[Any, Any]:
        wanted = self.recipes.of(project)
        with Store(project.data) as store:
            system = store.system
        return {
            **self._blank(project, ""),
            self.talks: Talk(),
            self.run: "",
            self.system: system,
            self.box: "",
            self.notice: "",
            **{widget: getattr(wanted.compare, name) for name, widget in self.knobs.items()},
            self.numbers: self._numbers(project, ""),
        }

    def tick(self, project: Project, at: str) -> dict[Any, Any]:
        """A finished training or measurement brings new sides and numbers; a conversation that has begun stays."""
        if not at:
            return {**self._blank(project, ""), self.numbers: self._numbers(project, "")}
        return {self.sides: self._sides(project, at), self.numbers: self._numbers(project, at)}

    def _blank(self, project: Project, run: str) -> dict[Any, Any]:
        found = self._runs(project)
        return {
            self.talk: draw("talk", turns=(), waiting=False, ready=bool(found)),
            self.sides: self._sides(project, run),
            self.chips: self._chips(project),
            self.send: gr.Button(interactive=bool(found), visible=True),
            self.stop: gr.Button(visible=False),
            self.dialogue: gr.Column(visible=bool(found)),
        }

    def _runs(self, project: Project) -> list[tuple[Job, JobView]]:
        return [(job, view) for job, view in self.frame.runs.of_kind(project, "train") if usable(view)]

    def _sides(self, project: Project, run: str) -> str:
        found = self._runs(project)
        if not found:
            return ""
        job = next((job for job, _ in found if job.id == run), found[0][0])
        base = recipe.load(job.recipe).model.base
        everyone = [job for job, _ in self.frame.runs.of_kind(project, "train")]
        number = about.numbers(everyone[::-1])  # those of the Train tab, where unusable ones count too
        runs = [
            (job.id, " · ".join(filter(None, [f"run {number[job.id]}", about.read(job).name, title(view)])))
            for job, view in found
        ]
        titles = {m.base: m.title for m in models.catalog()}
        return draw("sides", base=titles.get(base, base), runs=runs, chosen=job.id,
                    proof=proof_of(job))  # fmt: skip

    def _chips(self, project: Project) -> str:
        if not self._runs(project):
            return ""
        with Store(project.data) as store:
            rows = store.rows(limit=_CHIPS, view="heldout") or store.rows(limit=_CHIPS)
            heldout = bool(store.count("heldout"))
        chips = [(row.id, text) for row in rows if (text := _question(row.conversation.messages))]
        return draw("chips", chips=chips, heldout=heldout)

    def _numbers(self, project: Project, run: str) -> str:
        found = self._runs(project)
        if not found:
            return ""
        job, view = next(((j, v) for j, v in found if j.id == run), found[0])
        path = job.path / "report" / "heldout.json"
        report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        newest = self.frame.runs.newest(project, "evaluate")
        return draw("numbers", result=view.result, report=report, job=job, measuring=newest and newest[1])

    # --- what a person does

    def ask(self, given: dict, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """What stands in the box."""
        text = (given[self.box] or "").strip()
        if text:
            yield from self._answers(given, given[self.talks].turns, Turn(text), request)

    def ask_chip(self, given: dict, event: gr.EventData, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """A prompt of the rows, in a conversation of its own."""
        with Store(self.frame.open(request, given[self.frame.project]).data) as store:
            messages = store.get(int(event.row)).conversation.messages
        expected = next((m.content for m in messages if m.role == "assistant"), "")
        yield from self._answers(given, (), Turn(_question(messages), expected=expected), request)

    def retry(self, given: dict, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """The last question again, with another seed where answers are sampled."""
        if turns := given[self.talks].turns:
            *earlier, last = turns
            yield from self._answers(given, tuple(earlier), replace(last, before=Answer(), after=Answer()), request, 1)

    def _answers(
        self, given: dict, earlier: tuple[Turn, ...], turn: Turn, request: gr.Request, more_seed: int = 0
    ) -> Iterator[dict[Any, Any]]:
        """Both answers as they come, while this is the newest that the page asked."""
        talk, asker = given[self.talks], str(request.session_hash)
        mine = talk.begin(earlier)
        self.engines.cancel(asker)  # what was asked before makes room
        try:
            for turns, update in self._stream(given, earlier, turn, asker, request, more_seed):
                if talk.asked != mine:
                    return
                talk.turns = turns
                yield update
        except FTError:
            if talk.asked == mine:
                raise

    def _stream(
        self, given: dict, earlier: tuple[Turn, ...], turn: Turn, asker: str, request: gr.Request, more_seed: int
    ) -> Iterator[tuple[tuple[Turn, ...], dict[Any, Any]]]:
        """The conversation and how it looks as the answers come; then the proof that before is before."""
        project = self.frame.open(request, given[self.frame.project])
        client = self.engines.of(self._job(project, given[self.run]))
        sampling = self._sampling(given, more_seed)
        turns = (*earlier, turn)
        yield (
            turns,
            {
                self.talk: _drawn(turns, waiting=True),
                self.run: client.job.id,  # a later run does not take over a conversation
                self.box: "",
                self.send: gr.Button(visible=False),
                self.stop: gr.Button(visible=True),
            },
        )
        idle = {self.send: gr.Button(visible=True), self.stop: gr.Button(visible=False)}
        shown = time.monotonic()
        try:
            for delta in client.ask(_chats(given[self.system], earlier, turn), sampling, asker=asker):
                answer = Answer(delta.text, delta.tokens, delta.tokens_per_s, delta.done)
                turn = replace(turn, **{delta.side: answer})
                turns = (*earlier, turn)
                if time.monotonic() - shown > _YIELD_S:
                    shown = time.monotonic()
                    yield turns, {self.talk: _drawn(turns)}
            yield turns, {self.talk: _drawn(turns), **idle}
            if not was_compared(client.job):
                _keep_proof(client, asker)
                yield turns, {self.sides: self._sides(project, client.job.id)}
        except FTError:
            kept = turns if turn.after.text else earlier
            yield kept, {self.talk: _drawn(kept), self.box: turn.asked, **idle}
            raise

    def _sampling(self, given: dict, more_seed: int) -> CompareRecipe:
        wanted = CompareRecipe()
        for name, widget in self.knobs.items():
            wanted = knobs.taken(wanted, name, given[widget])
        return replace(wanted, seed=wanted.seed + more_seed)

    def empty(self, name: str, talk: Talk, request: gr.Request) -> dict[Any, Any]:
        talk.begin()
        self.engines.cancel(str(request.session_hash))
        return {**self._blank(self.frame.open(request, name), ""), self.run: ""}

    def choose(self, name: str, talk: Talk, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        """Another run on the right side; the conversation begins anew."""
        talk.begin()
        self.engines.cancel(str(request.session_hash))
        project = self.frame.open(request, name)
        run = project.job(event.value).id
        return {**self._blank(project, run), self.run: run, self.numbers: self._numbers(project, run)}

    def cancel(self, request: gr.Request) -> dict[Any, Any]:
        self.engines.cancel(str(request.session_hash))
        return {}

    def measure(self, name: str, run: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        measuring.start(project, self._job(project, run))
        return {self.numbers: self._numbers(project, run)}

    def _job(self, project: Project, run: str) -> Job:
        found = self._runs(project)
        if not found:
            raise FTError("Nothing is trained yet, so there is no after.", "Train first; it takes minutes.")
        return next((job for job, _ in found if job.id == run), found[0][0])


def _drawn(turns: tuple[Turn, ...], waiting: bool = False) -> str:
    return draw("talk", turns=turns, waiting=waiting, ready=True)


def _chats(system: str, earlier: tuple[Turn, ...], turn: Turn) -> Chats:
    """The turns so far of each side, with its own earlier answers."""
    chats = {}
    for side in SIDES:
        messages = [Message("system", system.strip())] if system and system.strip() else []
        for past in earlier:
            messages += [Message("user", past.asked), Message("assistant", getattr(past, side).text)]
        chats[side] = (*messages, Message("user", turn.asked))
    return chats


def _keep_proof(client: EngineClient, asker: str) -> None:
    path = _proof_path(client.job)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(asdict(client.proof(asker=asker))))


def was_compared(job: Job) -> bool:
    """Whether both models of a training have been asked on a page."""
    return _proof_path(job).exists()


def proof_of(job: Job) -> dict[str, Any] | None:
    path = _proof_path(job)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _proof_path(job: Job) -> Path:
    return job.path / "report" / "proof.json"


def _question(messages: tuple[Message, ...]) -> str:
    return next((m.content for m in messages if m.role == "user"), "")
