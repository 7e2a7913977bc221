"""Pushes what was made to a private repository on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
from huggingface_hub import HfApi, errors

from ..errors import FTError
from ..events import Note
from . import card
from .start import Wanted
from .trained import Trained
from .verify import Check

_REFUSALS = (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, httpx.HTTPError, ConnectionError)


def push(
    wanted: Wanted, trained: Trained, made: Path, token: str, links: dict[str, str], endpoint: str | None = None
) -> Iterator[float | Note]:
    """Uploads `made` (a folder, or a GGUF) to `wanted.repo`, which is created private where it is not there.

    Yields the share done and Notes, returns the Checks; the repository's address is put into `links` as `repo`.
    Raises FTError for a token that is refused, a repository that is public or not the token's, and a Hub that does
    not answer. The token is in none of these.
    """
    api = HfApi(endpoint=endpoint, token=token)
    try:
        owner = api.whoami()["name"]
        name = wanted.repo or f"{wanted.file_stem}{_SUFFIX.get(wanted.push, '-GGUF')}"
        repo = name if "/" in name else f"{owner}/{name}"
        api.create_repo(repo, private=True, exist_ok=True)
        if not api.repo_info(repo).private:
            raise FTError(
                f"{repo} is public, and FT Flow pushes to private repositories alone",
                "Name another one; you can make it public on its page when you have looked at it.",
            )
        yield 0.1
        with tempfile.TemporaryDirectory(dir=made.parent, prefix=".push-") as scratch:
            folder = _folder(wanted, trained, made, repo, Path(scratch))
            yield 0.2
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"{wanted.name}, by FT Flow")
            yield 0.9
            check = _arrived(api, repo, folder)
    except _REFUSALS as error:
        raise _refused(error, api.endpoint) from None
    links["repo"] = f"{api.endpoint}/{repo}"
    yield Note(f"Pushed to {links['repo']} (private).")
    return [check]


_SUFFIX = {"adapter": "-lora", "merged": ""}


def _folder(wanted: Wanted, trained: Trained, made: Path, repo: str, scratch: Path) -> Path:
    """What is uploaded; its card speaks of the repository that it goes to."""
    if made.is_dir():
        folder = scratch / made.name
        shutil.copytree(made, folder, copy_function=_link)
        text = (folder / "README.md").read_text(encoding="utf-8")
        (folder / "README.md").unlink()
        card.write(folder, text.replace("PATH_OR_REPO", repo))
    else:
        folder = scratch / "gguf"
        folder.mkdir()
        _link(made, folder / made.name)
        card.write(folder, card.gguf(trained, wanted.name, repo, wanted.push.removeprefix("gguf:")))
    return folder


def _link(source: str | Path, target: str | Path) -> None:
    """Weights need not lie there twice."""
    Path(target).symlink_to(Path(source).resolve())


def _arrived(api: HfApi, repo: str, folder: Path) -> Check:
    """Whether the Hub has every file, with the same bytes as here."""
    there = {f.path: f for f in api.get_paths_info(repo, [p.name for p in folder.iterdir()])}
    same = 0
    files = sorted(folder.iterdir())
    for file in files:
        found = there.get(file.name)
        if found is None or found.size != file.stat().st_size:
            continue
        with file.open("rb") as source:
            same += found.lfs is None or found.lfs.sha256 == hashlib.file_digest(source, "sha256").hexdigest()
    return Check(f"Hub: every file arrived whole (of {len(files)})", "gate", same == len(files), same)


def _refused(error: Exception, endpoint: str) -> FTError:
    page = f"{endpoint}/settings/tokens"
    if not isinstance(error, errors.HfHubHTTPError) or error.response is None:
        return FTError(
            f"the Hugging Face Hub at {endpoint} does not answer",
            "Check the connection and try again; the files are whole.",
        )
    said = error.server_message or f"status {error.response.status_code}"
    match error.response.status_code:
        case 401:
            return FTError("the Hugging Face Hub does not know this token", f"Make one that may write, on {page}.")
        case 403:
            return FTError(f"the token may not do this: {said}", f"Make one that may write, on {page}.")
        case 404:
            return FTError(f"the Hugging Face Hub does not find it: {said}", "Check the repository's name.")
        case status if status >= 500:
            return FTError(f"the Hugging Face Hub has trouble of its own ({status})", "Try again later.")
    return FTError(f"the Hugging Face Hub refuses it: {said}", "The files are whole, in the export's folder.")
