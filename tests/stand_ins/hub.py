"""A Hugging Face Hub in memory: repositories of models, the LFS way of uploading, tokens that may write or only read.

It speaks to the real huggingface_hub client. `python -m tests.stand_ins.hub PORT` serves one for a look by hand; the
client wants HF_ENDPOINT=http://127.0.0.1:PORT HF_HUB_DISABLE_XET=1 (the Xet protocol is not spoken here).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import dataclass, field

import fastapi
import yaml
from fastapi.responses import JSONResponse, Response

from . import serve_forever

WRITER, READER = "hf_stand_in_write", "hf_stand_in_read"
ACCOUNTS = {WRITER: ("writer", "write"), READER: ("reader", "read")}


@dataclass
class Repo:
    owner: str
    private: bool = False
    gated: bool = False
    """Only those who were let in get its files."""
    let_in: set[str] = field(default_factory=set)
    """Accounts."""
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b""})
    large: set[str] = field(default_factory=set)
    """Paths that came by LFS."""
    commits: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(json.dumps(self.commits).encode()).hexdigest()


@dataclass
class Hub:
    """What the stand-in remembers; tests look at it."""

    repos: dict[str, Repo] = field(default_factory=dict)
    """By owner/name; those of datasets by datasets/owner/name."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, int]] = field(default_factory=list)

    def app(self) -> fastapi.FastAPI:
        app = fastapi.FastAPI()
        app.middleware("http")(self._note)
        app.get("/api/whoami-v2")(self.whoami)
        app.post("/api/repos/create")(self.create)
        app.post("/api/validate-yaml")(self.validate)
        app.put("/_lfs/{oid}")(self.put)
        app.post("/_lfs/verify/{oid}")(self.verify)
        for kind, address in (("models", "/{owner}/{name}"), ("datasets", "/datasets/{owner}/{name}")):
            api = f"/api/{kind}/{{owner}}/{{name}}"
            app.post(f"{api}/preupload/{{revision}}")(self.preupload)
            app.post(f"{address}.git/info/lfs/objects/batch")(self.batch)
            app.post(f"{api}/commit/{{revision}}")(self.commit)
            app.get(api)(self.info)
            app.get(f"{api}/revision/{{revision}}")(self.info)
            app.get(f"{api}/tree/{{revision}}")(self.tree)
            app.get(f"{api}/tree/{{revision}}/{{path:path}}")(self.tree)
            app.post(f"{api}/paths-info/{{revision}}")(self.paths)
            app.api_route(f"{address}/resolve/{{revision}}/{{path:path}}", methods=["GET", "HEAD"])(self.resolve)
        return app

    async def _note(self, request: fastapi.Request, call):
        response = await call(request)
        self.requests.append((request.method, request.url.path, response.status_code))
        return response

    # --- accounts and repositories --------------------------------------------------------------------------------

    def whoami(self, request: fastapi.Request) -> Response:
        account = _account(request)
        if account is None:
            return _error(401, "Invalid user token.")
        name, role = account
        token = {"type": "access_token", "accessToken": {"displayName": "stand-in", "role": role}}
        return JSONResponse({"type": "user", "name": name, "fullname": name, "orgs": [], "auth": token})

    async def create(self, request: fastapi.Request) -> Response:
        account, body = _account(request), await request.json()
        if account is None:
            return _error(401, "Invalid user token.")
        owner = body.get("organization") or account[0]
        if account[1] != "write" or owner != account[0]:
            return _error(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        id = f"{'datasets/' if body.get('type') == 'dataset' else ''}{owner}/{body['name']}"
        url = f"{request.base_url}{id}"
        if id in self.repos:
            return JSONResponse({"error": "You already created this model repo", "url": url}, 409)
        self.repos[id] = Repo(owner, bool(body.get("private")) or body.get("visibility") == "private")
        return JSONResponse({"url": url, "name": id.removeprefix("datasets/")})

    async def validate(self) -> dict:
        return {"errors": [], "warnings": []}

    def info(self, owner: str, name: str, request: fastapi.Request, revision: str = "main") -> Response:
        repo = self._repo(owner, name, request)
        if repo is None:
            return _not_found()
        stamp = "2026-01-01T00:00:00.000Z"
        files = [{"rfilename": path} for path in repo.files]
        said = {"_id": "1", "id": f"{owner}/{name}", "modelId": f"{owner}/{name}", "sha": repo.sha, "tags": []}
        said |= {"private": repo.private, "gated": "manual" if repo.gated else False, "cardData": _card(repo)}
        return JSONResponse({**said, "siblings": files, "lastModified": stamp, "createdAt": stamp})

    def _repo(self, owner: str, name: str, request: fastapi.Request, write: bool = False) -> Repo | None:
        """The repository, if whoever asks may see (or change) it; a private one is as if it were not there."""
        dataset = request.url.path.startswith(("/datasets/", "/api/datasets/"))
        repo = self.repos.get(f"datasets/{owner}/{name}" if dataset else f"{owner}/{name}")
        account = _account(request)
        mine = repo is not None and account is not None and account[0] == repo.owner
        if repo is None or (repo.private and not mine) or (write and not (mine and account[1] == "write")):
            return None
        return repo

    # --- uploads --------------------------------------------------------------------------------------------------

    async def preupload(self, owner: str, name: str, revision: str, request: fastapi.Request) -> Response:
        if self._repo(owner, name, request, write=True) is None:
            return _not_found()
        files = (await request.json())["files"]
        large = (".safetensors", ".gguf", ".parquet")
        modes = ["lfs" if f["size"] > 10**6 or f["path"].endswith(large) else "regular" for f in files]
        answers = [
            {"path": f["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
            for f, mode in zip(files, modes)
        ]
        return JSONResponse({"files": answers})

    async def batch(self, owner: str, name: str, request: fastapi.Request) -> Response:
        if self._repo(owner, name, request, write=True) is None:
            return _not_found()
        base, objects = str(request.base_url), []
        for wanted in (await request.json())["objects"]:
            oid = wanted["oid"]
            actions = {"upload": {"href": f"{base}_lfs/{oid}"}, "verify": {"href": f"{base}_lfs/verify/{oid}"}}
            objects.append({**wanted, **({} if oid in self.blobs else {"actions": actions})})
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def put(self, oid: str, request: fastapi.Request) -> Response:
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != oid:
            return _error(400, "the bytes are not those of the sha256")
        self.blobs[oid] = data
        return Response()

    def verify(self, oid: str) -> Response:
        return Response(status_code=200 if oid in self.blobs else 404)

    async def commit(self, owner: str, name: str, revision: str, request: fastapi.Request) -> Response:
        repo = self._repo(owner, name, request, write=True)
        if repo is None:
            return _not_found()
        for line in (await request.body()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "header":
                    repo.commits.append(value["summary"])
                case "file":
                    repo.files[value["path"]] = base64.b64decode(value["content"])
                    repo.large.discard(value["path"])
                case "lfsFile" if value["oid"] in self.blobs:
                    repo.files[value["path"]] = self.blobs[value["oid"]]
                    repo.large.add(value["path"])
                case "deletedFile":
                    repo.files.pop(value["path"], None)
                case other:
                    return _error(400, f"{other}: the LFS object is not there")
        url = f"{request.base_url}{owner}/{name}/commit/{repo.sha}"
        return JSONResponse({"success": True, "commitOid": repo.sha, "commitUrl": url, "hookOutput": ""})

    # --- downloads ------------------------------------------------------------------------------------------------

    def tree(self, owner: str, name: str, revision: str, request: fastapi.Request, path: str = "") -> Response:
        repo = self._repo(owner, name, request)
        if repo is None:
            return _not_found()
        inside = [file for file in repo.files if file.startswith(f"{path}/" if path else "")]
        if path and not inside:
            return _error(404, f"{path} does not exist on {revision}", "EntryNotFound")
        if request.query_params.get("recursive", "").lower() in ("true", "1"):
            return JSONResponse([_entry(repo, file) for file in inside])
        start = len(f"{path}/") if path else 0
        folders = {file[: file.index("/", start)] for file in inside if "/" in file[start:]}
        entries = [{"type": "directory", "path": folder, "size": 0, "oid": "0" * 40} for folder in sorted(folders)]
        return JSONResponse(entries + [_entry(repo, file) for file in inside if "/" not in file[start:]])

    async def paths(self, owner: str, name: str, revision: str, request: fastapi.Request) -> Response:
        repo = self._repo(owner, name, request)
        if repo is None:
            return _not_found()
        body = await request.body()
        try:
            wanted = json.loads(body)["paths"]
        except ValueError:
            wanted = (await request.form()).getlist("paths")
        return JSONResponse([_entry(repo, path) for path in wanted if path in repo.files])

    def resolve(self, owner: str, name: str, revision: str, path: str, request: fastapi.Request) -> Response:
        repo = self._repo(owner, name, request)
        if repo is None:
            return _not_found()
        if path not in repo.files:
            return _error(404, "Entry not found", "EntryNotFound")
        if repo.gated and (_account(request) or ("", ""))[0] not in repo.let_in:
            return _error(403, f"Access to {owner}/{name} is restricted", "GatedRepo")
        data = repo.files[path]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": repo.sha}
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(data))})
        if part := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", "")):
            first, last = int(part[1]), min(int(part[2]), len(data) - 1)
            where = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            return Response(data[first : last + 1], 206, headers=headers | where)
        return Response(data, headers=headers)


def _account(request: fastapi.Request) -> tuple[str, str] | None:
    return ACCOUNTS.get(request.headers.get("authorization", "").removeprefix("Bearer "))


def _entry(repo: Repo, path: str) -> dict:
    data = repo.files[path]
    entry = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if path in repo.large:
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


def _card(repo: Repo) -> dict:
    """What stands at the head of its README."""
    text = repo.files.get("README.md", b"").decode()
    return yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}


def _error(status: int, message: str, code: str = "") -> Response:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return JSONResponse({"error": message}, status, headers=headers)


def _not_found() -> Response:
    return _error(404, "Repository not found", "RepoNotFound")


if __name__ == "__main__":
    serve_forever(Hub().app(), int(sys.argv[1]))
