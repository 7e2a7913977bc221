"""Jobs of a Hugging Face Hub in memory: what is rented is a process here, which really runs the command it is given.

As there, a machine has nothing but its environment, its secrets and what it fetches; `uv` in it takes the packages
that are installed here for those that it would install.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

import fastapi
import psutil
from fastapi.responses import JSONResponse, Response, StreamingResponse

from .hub import Hub, _account, _error

_UV = """#!{python}
import os, sys
words = sys.argv[1:]
assert words.pop(0) == "run", words
while words[0].startswith("--"):
    option = words.pop(0)
    if option in ("--with", "--with-requirements"):
        given = words.pop(0)
        assert option == "--with" or os.path.exists(given), given
assert words.pop(0) == "python", words
os.execv({python!r}, [{python!r}, *words])
"""


@dataclass
class Machine:
    """One Job."""

    id: str
    owner: str
    spec: dict[str, Any]
    process: subprocess.Popen[str]
    began: float = field(default_factory=time.time)
    lines: list[str] = field(default_factory=list)
    stage: str = "RUNNING"
    message: str | None = None
    frozen: list[psutil.Process] = field(default_factory=list)


@dataclass
class Jobs:
    """What the stand-in remembers; tests look at it and change it."""

    hub: Hub
    machines: list[Machine] = field(default_factory=list)
    address: str = ""
    refuses: tuple[int, str] | None = None
    """Status and words for whoever wants to rent."""
    down: bool = False
    """Nothing is answered."""
    freezes_at: str = ""
    """The training's process is halted once a line of a log has this; `thaw` lets it go on."""

    def app(self) -> fastapi.FastAPI:
        app = self.hub.app()
        app.middleware("http")(self._answer_if_up)
        app.delete("/api/repos/delete")(self.delete_repo)
        app.post("/api/jobs/{owner}")(self.rent)
        app.get("/api/jobs/{owner}")(self.list)
        app.get("/api/jobs/{owner}/{id}")(self.inspect)
        app.post("/api/jobs/{owner}/{id}/cancel")(self.cancel)
        app.get("/api/jobs/{owner}/{id}/logs")(self.logs)
        return app

    async def _answer_if_up(self, request: fastapi.Request, call: Callable) -> Response:
        return Response(status_code=503) if self.down else await call(request)

    async def delete_repo(self, request: fastapi.Request) -> Response:
        body, account = await request.json(), _account(request)
        kind = "datasets/" if body.get("type") == "dataset" else ""
        id = f"{kind}{body.get('organization') or account[0]}/{body['name']}"
        return Response(status_code=200 if self.hub.repos.pop(id, None) else 404)

    async def rent(self, owner: str, request: fastapi.Request) -> Response:
        account, spec = _account(request), await request.json()
        if account is None or account[0] != owner:
            return _error(401, "Invalid user token.")
        if self.refuses:
            return _error(*self.refuses)
        machine = Machine(token_hex(12), owner, spec, self._started(spec, str(request.base_url)))
        self.machines.append(machine)
        threading.Thread(target=self._read, args=(machine,), daemon=True).start()
        return JSONResponse(self._told(machine))

    def _started(self, spec: dict[str, Any], endpoint: str) -> subprocess.Popen[str]:
        place = Path(tempfile.mkdtemp(prefix="rented-"))
        (place / "bin").mkdir()
        uv = place / "bin" / "uv"
        uv.write_text(_UV.format(python=sys.executable), encoding="utf-8")
        uv.chmod(0o755)
        environment = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "HOME": str(place), "OMP_NUM_THREADS": "1"}
        environment |= {"HF_ENDPOINT": endpoint.rstrip("/"), "HF_HUB_DISABLE_XET": "1"}
        return subprocess.Popen(
            spec["command"],
            cwd=place,
            env={**environment, **spec["environment"], **spec.get("secrets", {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _read(self, machine: Machine) -> None:
        for line in machine.process.stdout:
            machine.lines.append(line.rstrip("\n"))
            if self.freezes_at and self.freezes_at in line:
                self.freezes_at = ""
                for process in _family(machine):
                    if "work" in process.cmdline():
                        process.send_signal(signal.SIGSTOP)
                        machine.frozen.append(process)
        machine.process.wait()
        if machine.stage == "RUNNING":
            machine.stage = "ERROR" if machine.process.returncode else "COMPLETED"

    def thaw(self) -> None:
        for machine in self.machines:
            while machine.frozen:
                machine.frozen.pop().send_signal(signal.SIGCONT)

    def end(self, machine: Machine, stage: str, message: str | None = None) -> None:
        """The machine is taken away, as it stands."""
        machine.stage, machine.message = stage, message
        for process in _family(machine):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def end_all(self) -> None:
        for machine in self.machines:
            self.end(machine, machine.stage)

    def heard_stop(self) -> bool:
        """Whether a machine has found the file that asks it to stop."""
        return any(path.endswith("/main/stop") and status == 200 for _, path, status in self.hub.requests)

    # --- what is asked

    def list(self, owner: str, request: fastapi.Request) -> Response:
        wanted = dict(label.split("=", 1) for label in request.query_params.getlist("label"))
        found = [m for m in self.machines if m.owner == owner and wanted.items() <= m.spec["labels"].items()]
        return JSONResponse([self._told(machine) for machine in found])

    def _told(self, machine: Machine) -> dict[str, Any]:
        """As the Hub tells it: names of secrets, never their values."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(machine.began))
        said = {key: machine.spec[key] for key in ("command", "arguments", "environment", "flavor", "labels")}
        return said | {
            "id": machine.id,
            "createdAt": stamp,
            "startedAt": stamp,
            "dockerImage": machine.spec["dockerImage"],
            "secrets": dict.fromkeys(machine.spec.get("secrets", {})),
            "owner": {"id": "1", "name": machine.owner, "type": "user"},
            "status": {"stage": machine.stage, "message": machine.message},
            "durations": {"schedulingSecs": 1, "runningSecs": 90, "totalSecs": 91},
        }

    def _of(self, request: fastapi.Request, owner: str, id: str) -> Machine | None:
        account = _account(request)
        if account is None or account[0] != owner:
            return None
        return next((machine for machine in self.machines if machine.id == id), None)

    def inspect(self, owner: str, id: str, request: fastapi.Request) -> Response:
        machine = self._of(request, owner, id)
        return JSONResponse(self._told(machine)) if machine else _error(404, "Job not found")

    def cancel(self, owner: str, id: str, request: fastapi.Request) -> Response:
        machine = self._of(request, owner, id)
        if machine is None:
            return _error(404, "Job not found")
        self.end(machine, "CANCELED")
        return JSONResponse(self._told(machine))

    def logs(self, owner: str, id: str, request: fastapi.Request) -> Response:
        machine = self._of(request, owner, id)
        if machine is None:
            return _error(404, "Job not found")
        return StreamingResponse(self._stream(machine), media_type="text/event-stream")

    def _stream(self, machine: Machine) -> Iterator[str]:
        yield _line("===== Job started at 2026-01-01 00:00:00 =====")
        said = 0
        while True:
            over = machine.stage != "RUNNING"
            for line in machine.lines[said:]:
                said += 1
                yield _line(line)
            if over or self.down:
                return
            time.sleep(0.05)
            yield ": keep-alive\n\n"


def _line(text: str) -> str:
    return f"data: {json.dumps({'data': text, 'timestamp': '2026-01-01T00:00:00.000Z'})}\n\n"


def _family(machine: Machine) -> list[psutil.Process]:
    try:
        process = psutil.Process(machine.process.pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
