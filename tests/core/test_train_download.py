"""Fetching a base model with the real client from a local server that answers as the Hub does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "a" * 40


class _Hub(BaseHTTPRequestHandler):
    """One model, `shop/tiny`, from a folder; `shop/gated` wants to be asked; there is nothing else."""

    folder: Path
    asked: list[str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if match := re.match(r"/api/models/shop/tiny/revision/(\w+)", self.path):
            if match[1] not in ("main", COMMIT):
                return self._refuse(404, "RevisionNotFound", "Invalid rev id")
            files = [{"rfilename": name} for name in self._files()]
            return self._json({"id": "shop/tiny", "sha": COMMIT, "siblings": files, "private": False})
        if self.path.startswith("/api/models/shop/tiny/tree/"):
            return self._json(
                [{"type": "file", "path": n, "size": len(b), "oid": self._etag(b)} for n, b in self._files().items()]
            )
        if match := re.match(rf"/shop/tiny/resolve/(?:main|{COMMIT})/(.+)", self.path):
            return self._file(self._files()[match[1]])
        if "/shop/gated" in self.path:
            return self._refuse(403, "GatedRepo", "Access to model shop/gated is restricted")
        return self._refuse(404, "RepoNotFound", "Repository not found")

    do_HEAD = do_GET

    def _files(self) -> dict[str, bytes]:
        found = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        return {**found, "pytorch_model.bin": b"a pickle", "onnx/model.safetensors": b"another format"}

    def _etag(self, body: bytes) -> str:
        return hashlib.sha1(body).hexdigest()

    def _json(self, value: object) -> None:
        self._file(json.dumps(value).encode(), "application/json")

    def _file(self, body: bytes, kind: str = "application/octet-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{self._etag(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path) -> Iterator[tuple[type[_Hub], dict[str, str]]]:
    """The stand-in, and the environment in which the client takes it for the Hub."""
    answering = type("Answering", (_Hub,), {"folder": tiny_model, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
    }
    yield answering, environment
    server.shutdown()


def _fetch(environment: dict[str, str], base: str, code: str = "", revision: str = "") -> list[str]:
    program = f"""
from pathlib import Path
from ft_core.errors import FTError
from ft_core.train import base, download, models
from ft_core.workspace import Workspace
said = []
try:
    {code or f"print(download.snapshot({base!r}, {revision!r}, lambda share, what: said.append((share, what))))"}
    print(said[-1:])
except FTError as error:
    print("refused:", error.message, "|", error.hint)
"""
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_hub_id_becomes_a_whole_folder_without_pickles(hub, tiny_model):
    answering, environment = hub
    folder, said = _fetch(environment, "shop/tiny")
    names = {path.name for path in Path(folder).iterdir()}
    assert names == {path.name for path in tiny_model.iterdir()}
    assert (Path(folder) / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    assert "1.0" in said and "downloading shop/tiny" in said
    assert not [path for path in answering.asked if path.endswith(".bin") or "onnx" in path]


def test_the_tokenizer_comes_without_the_weights(hub):
    answering, environment = hub
    code = "print(models.tokenizer_folder('shop/tiny', '', Workspace(Path('.')), Path('.')))"
    folder, _ = _fetch(environment, "", code)
    assert (Path(folder) / "tokenizer.json").exists() and not (Path(folder) / "model.safetensors").exists()
    assert not [path for path in answering.asked if path.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("base", "revision", "words"),
    [
        ("shop/gated", "", ["gated", "/shop/gated", "HF_TOKEN"]),
        ("shop/nothing", "", ["there is no model 'shop/nothing'"]),
        ("shop/tiny", "v9", ["has no revision 'v9'"]),
        ("not a name!", "", ["there is no model 'not a name!'"]),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(hub, base, revision, words):
    (said,) = _fetch(hub[1], base, revision=revision)
    assert said.startswith("refused: ") and all(word in said for word in words)


def test_a_hub_that_is_down_is_a_sentence_and_what_was_fetched_still_works(hub):
    _, environment = hub
    folder, _ = _fetch(environment, "shop/tiny")
    down = environment | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert _fetch(down, "shop/tiny")[0] == folder
    (said,) = _fetch(down, "shop/other")
    assert said.startswith("refused: the model shop/other is not on this machine and the Hugging Face Hub cannot")


def test_the_builtin_model_can_come_from_the_hub(hub, tmp_path):
    _, environment = hub
    code = f"""
    from ft_core.train import builtin
    builtin.BUILTIN_REPO, builtin.builtin_gguf = "shop/tiny", lambda: None
    folder = builtin.ensure_builtin(Workspace.at({str(tmp_path / "home")!r}), lambda *told: said.append(told))
    print(builtin.verify(folder), sorted(path.name for path in folder.iterdir()))
"""
    whole, said = _fetch(environment, "", code.strip())
    assert whole.startswith("True") and "model.safetensors" in whole and ".cache" not in whole
    assert "ready" in said
