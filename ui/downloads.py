"""Files for the browser, by routes that ask whose they are (a gr.File's address is open to anybody who has it)."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from ft_core import recipe
from ft_core.conversation import Conversation
from ft_core.data import folder, writing
from ft_core.data.layout import SHAPES
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.train import report

from .frame import Recipes
from .session import House

_PREFIX = "/gradio_api/ft"
"""Beneath Gradio's own prefix, so that it is reached however the app is served."""
_FORMATS = ("jsonl", "json", "csv", "parquet", "zip")
"""Of rows; a zip holds a folder of `datasets`."""


def routes(house: House) -> list[Route]:
    def rows(request: Request) -> Response:
        """The rows that are trained, as a file: `as` is SHAPE.FORMAT, `split` one side of it alone."""
        project = house.project(request, request.query_params.get("project", ""))
        name, side = request.query_params.get("as", ""), request.query_params.get("split") or None
        shape, _, kind = name.partition(".")
        if shape not in SHAPES or kind not in _FORMATS or side not in (None, "train", "heldout"):
            raise FTError(f"rows are not written as {name!r}", f"Formats are {', '.join(_FORMATS)}.")
        with ExitStack() as unless_sent:
            scratch = Path(tempfile.mkdtemp(prefix="ft-rows-"))
            unless_sent.callback(shutil.rmtree, scratch)
            with Store(project.data) as store:
                path = _written(store.conversations(side), scratch, shape, kind)
            unless_sent.pop_all()
        remove = BackgroundTask(shutil.rmtree, scratch)
        return FileResponse(path, filename=f"{project.name}-{path.name}", background=remove)

    def made(request: Request) -> Response:
        """One file of an export."""
        project = house.project(request, request.query_params.get("project", ""))
        job = project.job(request.query_params.get("job", ""))
        path = (job.export / request.query_params.get("file", "")).resolve()
        if not path.is_relative_to(job.export.resolve()) or not path.is_file():
            raise FTError("there is no such file in this export", "Make the export again.")
        return FileResponse(path, filename=path.name)

    def recipe_file(request: Request) -> Response:
        """The project's recipe, to be kept in git and run elsewhere."""
        project = house.project(request, request.query_params.get("project", ""))
        head = {"content-disposition": 'attachment; filename="recipe.yaml"'}
        return PlainTextResponse(recipe.dump(Recipes().of(project)), headers=head)

    def report_file(request: Request) -> Response:
        """What a training says of itself at its end."""
        project = house.project(request, request.query_params.get("project", ""))
        path = project.job(request.query_params.get("job", "")).path / "report" / report.NAME
        if not path.is_file():
            raise FTError("there is no report of this run", "It is written when a training ends.")
        return FileResponse(path, filename=path.name)

    given = {"rows": rows, "made": made, "recipe": recipe_file, "report": report_file}
    return [Route(f"{_PREFIX}/{name}", _told(endpoint)) for name, endpoint in given.items()]


def _told(endpoint: Callable[[Request], Response]):
    async def answer(request: Request) -> Response:
        try:
            return await run_in_threadpool(endpoint, request)
        except FTError as error:
            return PlainTextResponse(f"{error.message}\n{error.hint}\n", status_code=404)

    return answer


def _written(rows: Iterator[tuple[int, Conversation, str]], scratch: Path, shape: str, kind: str) -> Path:
    path = scratch / f"{shape}.{kind}"
    if kind == "zip":
        folder.write(rows, path.with_suffix(""), shape)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for file in sorted(path.with_suffix("").rglob("*")):
                zipped.write(file, file.relative_to(scratch))
    else:
        writing.write((conversation for _, conversation, _ in rows), path, shape)
    return path
