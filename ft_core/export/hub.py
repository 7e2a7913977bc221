"""Pushes what was made to a private repository on the Hugging Face Hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi

from ..data import repository
from ..errors import FTError
from ..events import Note
from . import card
from .start import Wanted
from .trained import Trained
from .verify import Check

_KEPT = "the files are whole, in the export's folder"


def push(
    wanted: Wanted, trained: Trained, made: Path, token: str, links: dict[str, str], endpoint: str | None = None
) -> Iterator[float | Note]:
    """Uploads `made` (a folder, or a GGUF) to `wanted.repo`, which is created private where it is not there.

    Yields the share done and Notes, returns the Checks; the repository's address is put into `links` as `repo`.
    Raises FTError for a token that is refused, a repository that is public or not the token's, and a Hub that does
    not answer. The token is in none of these.
    """
    api = HfApi(endpoint=endpoint, token=token)
    with repository.refusals(api.endpoint, _KEPT):
        repo = repository.whole_name(api, wanted.repo or f"{wanted.file_stem}{_SUFFIX.get(wanted.push, '-GGUF')}")
        api.create_repo(repo, private=True, exist_ok=True)
        if not repository.is_private(api, repo, "model"):
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
            same, files = repository.arrived(api, repo, "model", folder)
    links["repo"] = f"{api.endpoint}/{repo}"
    yield Note(f"Pushed to {links['repo']} (private).")
    return [Check(f"Hub: every file arrived whole (of {files})", "gate", same == files, same)]


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
