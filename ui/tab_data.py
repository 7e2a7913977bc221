"""Data: import, read, edit and judge the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from ft_core.data import formats, quality
from ft_core.data.files import Broken
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.workspace import Project

from .errors import told
from .frame import Frame, Recipes, counts_stamp
from .grid import grid
from .panel import draw, panel
from .renderers import renderer_of

_CHECKED_ROWS = 20_000
"""Up to here the page looks for things to put right by itself."""


class DataTab:
    def __init__(self, frame: Frame, recipes: Recipes):
        self.frame, self.recipes = frame, recipes
        self.at = None
        self._checked: dict[tuple[Any, ...], str] = {}
        self.notice = panel(elem_id="data-notice")
        self.system = gr.Textbox(
            label="Who is the assistant? (system prompt of every row that brings none)",
            placeholder="You are the help desk of …",
            lines=1, max_lines=6, elem_id="system", elem_classes="ft-wide",
        )  # fmt: skip
        self.file = gr.UploadButton(
            "Import", file_count="single", visible="hidden", elem_id="import-file",
            file_types=[".csv", ".json", ".jsonl", ".parquet"],
        )  # fmt: skip
        self.upload = gr.State("")
        self.preview = panel(elem_id="import-preview")
        self.grid = grid(frame.house, recipes)
        self.checks = panel(elem_id="checks")
        self.shown = [self.system, self.grid, self.checks, self.notice, self.preview, self.upload]

        tell = told(self.notice)
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        gr.on([self.system.submit, self.system.blur], tell(self.keep_system), [frame.project, self.system],
              [self.notice, self.grid, self.checks], **quiet)  # fmt: skip
        self.file.upload(tell(self.look), [self.file], [self.notice, self.preview, self.upload],
                         api_visibility="private")  # fmt: skip
        self.preview.do(tell(self.answer), [frame.project, self.upload],
                        [self.notice, self.preview, self.upload, self.grid, self.checks, self.system],
                        api_visibility="private")  # fmt: skip
        self.grid.changed(tell(self.recheck), [frame.project], [self.notice, self.checks], **quiet)

    # --- what it shows

    def show(self, project: Project) -> dict[Any, Any]:
        with Store(project.data) as store:
            system = store.system
        return {self.system: system, self.notice: "", self.preview: "", self.upload: "", **self.tick(project)}

    def tick(self, project: Project, at: str = "") -> dict[Any, Any]:
        return {self.grid: self._grid(project), self.checks: self._checks(project)}

    def _grid(self, project: Project) -> dict[str, str]:
        return {"project": project.name, "stamp": counts_stamp(project)}

    def _checks(self, project: Project) -> str:
        """What there is to put right; kept while nothing changes, because it reads every row."""
        wanted = self.recipes.of(project)
        renderer = renderer_of(project, wanted)
        key = (project.path, counts_stamp(project), wanted.train.max_length, renderer is None, wanted.model)
        if key not in self._checked:
            if len(self._checked) > 50:
                self._checked.clear()
            with Store(project.data) as store:
                few = 0 < store.count() <= _CHECKED_ROWS
                check = quality.check(store, renderer, wanted.train.max_length) if few else None
            self._checked[key] = draw("checks", check=check) if check else ""
        return self._checked[key]

    # --- what a person does

    def keep_system(self, name: str, text: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        with Store(project.data) as store:
            if store.system == text.strip():
                return {}
            store.set_system(text.strip())
        return self.tick(project)

    def recheck(self, name: str, request: gr.Request) -> dict[Any, Any]:
        return {self.checks: self._checks(self.frame.open(request, name))}

    def look(self, path: str) -> dict[Any, Any]:
        """A file was chosen: what it is and its first rows, before anything is taken."""
        return {self.preview: _preview(path, {}), self.upload: path}

    def answer(self, name: str, path: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        """A button of the preview: other columns, take it, or leave it."""
        if event.do == "leave":
            return {self.preview: "", self.upload: ""}
        if not path or not Path(path).exists():
            raise FTError("The file is no longer here.", "Choose it again.")
        mapping = {k.removeprefix("map-"): v for k, v in event._data.items() if k.startswith("map-") and v}
        if event.do == "map":
            return {self.preview: _preview(path, mapping)}
        project = self.frame.open(request, name)
        try:
            with Store(project.data) as store:
                done = formats.import_files(store, [Path(path)], mapping or None, partial=event.do == "take-partial")
        except FTError as error:
            return {self.preview: _preview(path, mapping, error)}
        Path(path).unlink(missing_ok=True)
        return {
            self.preview: draw("imported", done=done, file=Path(path).name),
            self.upload: "",
            **self.tick(project),
        }


def _preview(path: str, mapping: dict[str, str], error: FTError | None = None) -> str:
    """What a file is and its first rows; `error` is what refused it when it was taken."""
    found = None
    try:
        found = formats.recognise(Path(path), mapping or None)
    except FTError as refused:
        error = refused
    file = Path(path)
    return draw("import", file=file.name, size=file.stat().st_size, found=found, error=error,
                breaks=isinstance(error, Broken))  # fmt: skip
