"""Files for the browser, by routes that ask whose they are (a gr.File's address is open to anybody who has it)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from ft_core.data import formats
from ft_core.data.store import Store
from ft_core.errors import FTError

from .session import House

_PREFIX = "/gradio_api/ft"
"""Beneath Gradio's own prefix, so that it is reached however the app is served."""
_ROWS = {
    "messages.jsonl": "messages",
    "sharegpt.jsonl": "sharegpt",
    "alpaca.csv": "alpaca",
    "messages.parquet": "messages",
}


def routes(house: House) -> list[Route]:
    def rows(request: Request) -> Response:
        """The rows that are trained, as a file."""
        project = house.project(request, request.query_params.get("project", ""))
        name = request.query_params.get("as", "")
        if name not in _ROWS:
            raise FTError(f"rows are not written as {name!r}", f"Known here: {', '.join(_ROWS)}.")
        folder = Path(tempfile.mkdtemp(prefix="ft-rows-"))
        path = folder / name
        with Store(project.data) as store:
            formats.write((conversation for _, conversation, _ in store.conversations()), path, _ROWS[name])
        return FileResponse(path, filename=f"{project.name}-{name}", background=BackgroundTask(_remove, folder, path))

    def made(request: Request) -> Response:
        """One file of an export."""
        project = house.project(request, request.query_params.get("project", ""))
        job = project.job(request.query_params.get("job", ""))
        path = (job.export / request.query_params.get("file", "")).resolve()
        if not path.is_relative_to(job.export.resolve()) or not path.is_file():
            raise FTError("there is no such file in this export", "Make the export again.")
        return FileResponse(path, filename=path.name)

    return [Route(f"{_PREFIX}/rows", _told(rows)), Route(f"{_PREFIX}/made", _told(made))]


def _told(endpoint: Callable[[Request], Response]):
    async def answer(request: Request) -> Response:
        try:
            return await run_in_threadpool(endpoint, request)
        except FTError as error:
            return PlainTextResponse(f"{error.message}\n{error.hint}\n", status_code=404)

    return answer


def _remove(folder: Path, path: Path) -> None:
    path.unlink(missing_ok=True)
    folder.rmdir()
