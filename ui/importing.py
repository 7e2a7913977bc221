"""Import: four ways to bring rows, a look at them before anything is taken, and long imports as jobs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gradio as gr

from ft_core import jobs
from ft_core.data import addresses, files, formats, look, sources, take
from ft_core.data.reading import Broken, HubRows, Pasted
from ft_core.data.sources import Source
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import JobView, State
from ft_core.workspace import Job, Project

from . import say
from .frame import Frame
from .panel import draw, panel
from .session import hub_token

_AT_ONCE = 20_000_000
"""Bytes that are taken while the person waits; more, and what is packed or far away, is a job."""
_PACKED = (".zip", ".gz")
_SHOWN_SOURCES = 6
FIELDS = {
    "prompt": "What a person asks (prompt)",
    "completion": "What it should answer (completion)",
    "instruction": "What a person asks (instruction)",
    "input": "What it is asked about (input)",
    "output": "What it should answer (output)",
    "response": "What it should answer (response)",
    "contexts": "Texts to answer from (contexts)",
    "chosen": "The better answer (chosen)",
    "rejected": "The worse answer (rejected)",
    "messages": "The whole conversation (messages)",
    "conversations": "The whole conversation (conversations)",
    "system": "Who the assistant is (system)",
    "history": "What was said before (history)",
    "tools": "What it may call (tools)",
    "text": "The text",
}
SHAPES = {
    "messages": "conversations (messages)",
    "sharegpt": "conversations (ShareGPT)",
    "prompt-completion": "a question and its answer (prompt, completion)",
    "alpaca": "an instruction and its output (alpaca)",
    "contexts": "a question on texts (contexts)",
    "preference": "a better and a worse answer (preference)",
    "text": "plain text",
}


@dataclass(frozen=True)
class Draft:
    """What a person is about to take, and how they want it read; '' and nothing is as it was recognised."""

    source: Source
    uploaded: bool = False
    mapping: dict[str, str] = field(default_factory=dict)
    shape: str = ""
    seen: tuple[str, dict[str, str]] = ("", {})
    """Shape and fields as they were shown last."""

    @property
    def name(self) -> str:
        return sources.named(self.source)


@dataclass
class Desk:
    """What one page looks at. Its newest turn alone is drawn: a look may take longer than the one after it."""

    draft: Draft | None = None
    turn: int = 0

    def next(self, draft: Draft | None) -> int:
        self.draft = draft
        self.turn += 1
        return self.turn


class Importing:
    """The pieces of the Data tab that rows come in by. `changed` says what the tab shows of the project then."""

    def __init__(self, frame: Frame):
        self.frame = frame
        self.ways = panel(draw("ways", on_space=frame.house.on_space, kinds=files.KINDS), elem_id="import-ways")
        self.file = gr.UploadButton(
            "Import", file_count="multiple", visible="hidden", elem_id="import-file",
            file_types=[*files.KINDS, *_PACKED],
        )  # fmt: skip
        self.desk = gr.State(Desk())
        self.preview = panel(elem_id="import-preview")
        self.running = panel(elem_id="import-job")
        self.shown = [self.preview, self.running]

    def listen(
        self, tell: Callable, outputs: list[Any], changed: Callable[[Project], dict], filtered: Callable[..., dict]
    ) -> None:
        """`outputs` are those of `changed` and `filtered` (a project and a filter of the grid) and the notice."""
        self.changed, self.filtered = changed, filtered
        seen = [*outputs, *self.shown]
        private = {"api_visibility": "private", "show_progress": "hidden"}
        self.file.upload(tell(self.look_at_files), [self.desk, self.file], seen, **private)
        self.ways.do(tell(self.look_elsewhere), [self.desk], seen, trigger_mode="multiple", **private)
        self.preview.do(tell(self.answer), [self.frame.project, self.desk], seen, trigger_mode="multiple", **private)
        self.running.do(tell(self.answer_job), [self.frame.project], seen, queue=False, **private)

    def show(self, project: Project) -> dict[Any, Any]:
        return {self.preview: "", **self.tick(project)}

    def tick(self, project: Project) -> dict[Any, Any]:
        newest = self.frame.runs.newest(project, "import")
        return {self.running: job_panel(project, *newest) if newest else ""}

    # --- a look before anything is taken

    def look_at_files(self, desk: Desk, paths: list[str]) -> Iterator[dict[Any, Any]]:
        yield from self._look(desk, Draft(_together([Path(path) for path in paths]), uploaded=True), "")

    def look_elsewhere(self, desk: Desk, event: gr.EventData, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """A form of the ways: paste, hub or address."""
        try:
            source = self._source(event)
        except FTError as error:
            desk.next(None)
            yield {self.preview: draw("import_refused", error=error)}
            return
        yield from self._look(desk, Draft(source), hub_token(request, self.frame.house))

    def _source(self, event: gr.EventData) -> Source:
        match event.do:
            case "paste":
                return Pasted(event.text)
            case "hub":
                return _of_the_hub(event.repo)
        address = event.address.strip()
        if not address:
            raise FTError("the address is empty", "It looks like https://… or /home/me/rows.jsonl.")
        if not addresses.is_one(address):
            if self.frame.house.on_space:
                raise FTError(
                    "paths of a Space are nobody's to read", "Upload the file, or give its https:// address."
                )
            return Path(address).expanduser()
        addresses.check(address)
        return address

    def _look(self, desk: Desk, draft: Draft, token: str) -> Iterator[dict[Any, Any]]:
        mine = desk.next(draft)
        if not _is_quick(draft):
            yield {self.preview: draw("import_looking", name=draft.name)}
        try:
            found = _found(draft, token)
        except FTError as error:
            if desk.turn == mine:
                yield {self.preview: draw("import_refused", error=error)}
            return
        if desk.turn != mine:
            return
        fields = {f["name"]: f["column"] for f in found["fields"]}
        draft = replace(draft, seen=(found["shape"], fields))
        if hub := found["hub"]:
            draft = replace(draft, source=replace(draft.source, config=hub["config"], split=hub["split"]))
        desk.draft = draft
        yield {self.preview: preview_panel(draft, found)}

    # --- buttons of the preview

    def answer(self, name: str, desk: Desk, event: gr.EventData, request: gr.Request) -> Iterator[dict[Any, Any]]:
        project, given, draft = self.frame.open(request, name), event._data, desk.draft
        token = hub_token(request, self.frame.house)
        if event.do == "leave":
            desk.next(None)
            _forget(draft)
            yield {self.preview: ""}
        elif event.do == "show":
            yield {self.preview: "", **self.filtered(project, {"source": event.source})}
        elif draft is None or (draft.uploaded and not Path(draft.source).exists()):
            yield {}  # the second of two clicks
        elif event.do == "again":
            yield from self._look(desk, _changed(draft, given), token)
        else:
            desk.next(None)
            yield from self._take(project, desk, _as_wanted(draft, given), event.do == "take-partial", token)

    def _take(self, project: Project, desk: Desk, draft: Draft, partial: bool, token: str) -> Iterator[dict[Any, Any]]:
        try:
            if not _is_quick(draft):
                take.start(project, draft.source, uploaded=draft.uploaded, mapping=draft.mapping, shape=draft.shape,
                           partial=partial, token=token)  # fmt: skip
                yield {self.preview: "", **self.tick(project)}
                return
            with Store(project.data) as store:
                done = formats.import_files(store, [draft.source], draft.mapping or None, partial, shape=draft.shape)
                found = _sources(store, draft.name)
        except FTError as error:
            desk.next(draft)
            yield {self.preview: self._refused(draft, error, token)}
            return
        _forget(draft)
        made = draw("imported", done=done, skipped=done.skipped, file=draft.name, sources=found)
        yield {self.preview: made, **self.changed(project)}

    def _refused(self, draft: Draft, error: FTError, token: str) -> str:
        try:
            return preview_panel(draft, _found(draft, token), error)
        except FTError:
            return draw("import_refused", error=error)

    # --- a long import

    def answer_job(self, name: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        job = project.job(event.job)
        wanted = take.Wanted.of(job)
        token = hub_token(request, self.frame.house)
        match event.do:
            case "stop":
                jobs.stop(job)
            case "close":
                job.seen.touch()
            case "again":
                jobs.resume(job, {"HF_TOKEN": token} if token else None)
            case "partial":
                source = take.left(job) or (HubRows(**wanted.hub) if wanted.hub else wanted.source)
                take.start(project, source, uploaded=bool(take.left(job)), mapping=wanted.mapping, shape=wanted.shape,
                           partial=True, token=token)  # fmt: skip
            case "show":
                return self.filtered(project, {"source": event.source})
        return self.tick(project)


def preview_panel(draft: Draft, found: dict[str, Any], error: FTError | None = None) -> str:
    """What was found, with a select for each part; `error` is what refused it when it was taken."""
    source = draft.source
    size = _size(draft.source) if isinstance(source, Path) else len(source.text) if isinstance(source, Pasted) else 0
    return draw("import", name=draft.name, size=size, found=found, words=FIELDS, shapes=SHAPES, error=error,
                breaks=isinstance(error, Broken), quick=_is_quick(draft))  # fmt: skip


def job_panel(project: Project, job: Job, view: JobView) -> str:
    """An import that runs, or is over and was not closed yet."""
    if job.seen.exists():
        return ""
    wanted, found = take.Wanted.of(job), []
    if view.state is State.FINISHED:
        with Store(project.data) as store:
            found = _sources(store, wanted.name)
    left = f"about {say.duration(view.eta_s)} left" if view.eta_s else ""
    broken = "is broken at" in view.error and not wanted.partial
    again = view.state in (State.STOPPED, State.INTERRUPTED, State.FAILED) and bool(
        wanted.hub or wanted.source or take.left(job)
    )
    return draw("importing", job=job.id, view=view, name=wanted.name, left=left, broken=broken, again=again,
                stopping=job.stop.exists(), sources=found)  # fmt: skip


def _found(draft: Draft, token: str) -> dict[str, Any]:
    if _is_quick(draft):
        return look.look(draft.source, draft.mapping or None, draft.shape)
    return look.ask(draft.source, draft.mapping or None, draft.shape, token)


def _is_quick(draft: Draft) -> bool:
    """Whether it is read while the person waits: it is here, small, and unpacked."""
    match draft.source:
        case Pasted(text=text):
            return len(text) <= _AT_ONCE
        case Path() as path:
            packed = [p for p in _files(path) if p.suffix.lower() in _PACKED]
            return (draft.uploaded or not path.is_dir()) and not packed and _size(path) <= _AT_ONCE
    return False


def _files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path] if path.exists() else []


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in _files(path))


def _together(paths: list[Path]) -> Path:
    """Several files as a folder of them, which is one source."""
    if len(paths) == 1:
        return paths[0]
    folder = Path(tempfile.mkdtemp(prefix="import-")) / f"{len(paths)} files"
    folder.mkdir()
    for n, path in enumerate(paths, 1):
        name = path.name if not (folder / path.name).exists() else f"{path.stem} ({n}){path.suffix}"
        shutil.move(path, folder / name)
    return folder


def _forget(draft: Draft | None) -> None:
    """An uploaded file is nobody's when it was taken, or left."""
    if draft and draft.uploaded and isinstance(draft.source, Path):
        if draft.source.is_dir():
            shutil.rmtree(draft.source.parent, ignore_errors=True)
        else:
            draft.source.unlink(missing_ok=True)


def _of_the_hub(text: str) -> HubRows:
    """From an id, or from the address of its page."""
    repo = text.strip().removeprefix("hub:").removeprefix("https://huggingface.co/").removeprefix("datasets/")
    repo = "/".join(repo.strip("/").split("/")[:2])
    if not repo:
        raise FTError("the id is empty", "It is owner/name, as on the dataset's page.")
    return HubRows(repo)


def _fields(given: dict[str, Any]) -> dict[str, str]:
    return {key.removeprefix("map-"): str(value) for key, value in given.items() if key.startswith("map-")}


def _changed(draft: Draft, given: dict[str, Any]) -> Draft:
    """After a select of the form has another value."""
    draft = replace(draft, source=_part(draft.source, given))
    if given.get("changed") in ("config", "split"):
        return replace(draft, mapping={}, shape="")
    if given.get("changed") == "shape":
        return replace(draft, mapping={}, shape=str(given["shape"]))
    return replace(draft, mapping=_fields(given), shape=str(given.get("shape", "")))


def _as_wanted(draft: Draft, given: dict[str, Any]) -> Draft:
    """With what the form says when it is sent, which may be newer than what was looked at."""
    draft = replace(draft, source=_part(draft.source, given))
    if "shape" not in given or (given["shape"], _fields(given)) == draft.seen:
        return draft
    return replace(draft, mapping=_fields(given), shape=str(given["shape"]))


def _part(source: Source, given: dict[str, Any]) -> Source:
    """Of a dataset of the Hub, the part that the form says."""
    if not isinstance(source, HubRows):
        return source
    config, split = str(given.get("config", source.config)), str(given.get("split", source.split))
    if config != source.config:
        split = ""
    much = given.get("much", "first")
    try:
        rows = 0 if much == "all" else int(given.get("rows") or 0)
    except ValueError:
        raise FTError("the number of rows is no number", "Give a whole number, such as 1000.") from None
    if rows < 0 or (much != "all" and "much" in given and not rows):
        raise FTError("the number of rows is less than one", "Give a whole number, such as 1000.")
    return replace(source, config=config, split=split, rows=rows, random=much == "random")


def _sources(store: Store, name: str) -> list[tuple[str, int]]:
    """Those of the store that a source gave rows to, with how many rows they have."""
    found = [(source, n) for source, n in store.sources().items() if source.startswith(name)]
    return found[:_SHOWN_SOURCES]
