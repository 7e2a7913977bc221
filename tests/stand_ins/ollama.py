"""An Ollama that keeps models and does not run them: blobs, create, show, tags, delete.

It speaks to the real ollama client and refuses what the real server refuses (server/create.go, parser/parser.go), with
errors inside a stream that began with 200, as it does. `python -m tests.stand_ins.ollama PORT` serves one by hand.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import fastapi
from fastapi.responses import JSONResponse, Response, StreamingResponse

from . import serve_forever


@dataclass
class Ollama:
    """What the stand-in remembers; tests look at it."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def app(self) -> fastapi.FastAPI:
        app = fastapi.FastAPI()
        app.middleware("http")(self._note)
        app.get("/api/version")(lambda: {"version": "0.30.0"})
        app.get("/api/tags")(self.tags)
        app.head("/api/blobs/{digest}")(self.has_blob)
        app.post("/api/blobs/{digest}")(self.blob)
        app.post("/api/create")(self.create)
        app.post("/api/show")(self.show)
        app.delete("/api/delete")(self.delete)
        return app

    async def _note(self, request: fastapi.Request, call):
        self.requests.append((request.method, request.url.path))
        return await call(request)

    def tags(self) -> dict:
        return {"models": [{"name": name, "model": name} for name in self.models]}

    def has_blob(self, digest: str) -> Response:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            return Response(status_code=400)
        return Response(status_code=200 if digest in self.blobs else 404)

    async def blob(self, digest: str, request: fastapi.Request) -> Response:
        if digest in self.blobs:
            return Response(status_code=200)
        data = await request.body()
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            return JSONResponse({"error": "digest mismatch"}, 400)
        self.blobs[digest] = data
        return Response(status_code=201)

    async def create(self, request: fastapi.Request) -> Response:
        body = await request.json()
        return StreamingResponse(
            (json.dumps(said) + "\n" for said in self._create(body)), media_type="application/x-ndjson"
        )

    def _create(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        files = body.get("files") or {}
        name = _full_name(body.get("model", ""))
        if name is None:
            yield {"error": "invalid model name", "status": 400}
        elif not files and not body.get("from"):
            yield {"error": "neither 'from' or 'files' was specified", "status": 400}
        elif any(PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts for path in files):
            yield {"error": "files must be local and relative", "status": 400}
        elif missing := [d for d in files.values() if d not in self.blobs]:
            yield {"error": f"blob {missing[0]} not found", "status": 400}
        elif not all(self.blobs[d].startswith(b"GGUF") for d in files.values()):
            yield {"error": "unsupported content type: unknown", "status": 400}
        elif wrong := _template_error(body.get("template") or ""):
            yield {"error": f"template error: {wrong}", "status": 400}
        else:
            yield {"status": "parsing GGUF"}
            yield {"status": "writing manifest"}
            self.models[name] = body
            yield {"status": "success"}

    async def show(self, request: fastapi.Request) -> Response:
        name = _full_name((await request.json()).get("model", ""))
        found = self.models.get(name or "")
        if found is None:
            return JSONResponse({"error": f"model '{name}' not found"}, 404)
        lines = [f"{key} {json.dumps(value)}" for key, value in (found.get("parameters") or {}).items()]
        return JSONResponse(
            {
                "template": found.get("template", ""),
                "system": found.get("system", ""),
                "parameters": "\n".join(lines),
                "license": found.get("license", ""),
                "details": {"format": "gguf"},
                "model_info": {},
            }
        )

    async def delete(self, request: fastapi.Request) -> Response:
        name = _full_name((await request.json()).get("model", ""))
        return Response(status_code=200 if self.models.pop(name or "", None) else 404)


def _full_name(name: str) -> str | None:
    """With its tag, as Ollama stores it; None for a name that it refuses."""
    name = name if ":" in name else f"{name}:latest"
    return name if re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)*:[\w][\w.-]*", name, re.ASCII) else None


def _template_error(template: str) -> str:
    """What Go's parser would say first; tests/gotmpl asks the real one."""
    actions = re.findall(r"\{\{-?\s*(.*?)\s*-?\}\}", template, re.DOTALL)
    if template.count("{{") != len(actions) + template.count('{{ "{{" }}'):
        return "unclosed action"
    depth = 0
    for action in actions:
        depth += action.startswith(("if ", "range ", "with "))
        depth -= action == "end"
        if depth < 0:
            return "unexpected {{end}}"
    return "unexpected EOF" if depth else ""


COMMANDS = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)


def parse_modelfile(text: str) -> list[tuple[str, str]]:
    """Commands with their values, as Ollama's parser reads them: no escapes, characters that do not print dropped."""
    found: list[tuple[str, str]] = []
    lines = iter(text.split("\n"))
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        command, _, value = line.strip().partition(" ")
        command = command.lower()
        if command not in COMMANDS:
            raise ValueError(f"command must be one of {', '.join(COMMANDS)}: {line!r}")
        if command == "parameter":
            command, _, value = value.partition(" ")
        value = _value(value, lines)
        found.append((command, value))
    if "from" not in dict(found):
        raise ValueError("no FROM line")
    return found


def _value(value: str, lines: Iterator[str]) -> str:
    """A value ends at the first end of line at which its quotes are closed."""
    while (whole := _unquoted(value.strip())) is None:
        try:
            value += "\n" + next(lines)
        except StopIteration:
            raise ValueError(f"unexpected end of file: {value!r}") from None
    return "".join(c for c in whole if c in "\n\t " or unicodedata.category(c)[0] not in "CZ")


def _unquoted(value: str) -> str | None:
    if value.startswith('"""'):
        return value[3:-3] if len(value) >= 6 and value.endswith('"""') else None
    if value.startswith('"'):
        return value[1:-1] if len(value) >= 2 and value.endswith('"') else None
    return value


if __name__ == "__main__":
    serve_forever(Ollama().app(), int(sys.argv[1]))
