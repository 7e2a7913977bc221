"""A repository on the Hugging Face Hub: its name and the token, what the Hub refuses, and whether all arrived."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, errors
from huggingface_hub.utils import httpx

from ..errors import FTError

Kind = Literal["model", "dataset"]

_REFUSALS = (
    errors.HfHubHTTPError,
    errors.HFValidationError,
    errors.OfflineModeIsEnabled,
    httpx.HTTPError,
    ConnectionError,
)


def check(name: str, token: str) -> None:
    """Raises FTError for what is no name of a repository ('' is the default one), and without a usable token."""
    if name and not re.fullmatch(r"([\w.-]+/)?[\w.-]+", name, re.ASCII):
        raise FTError(f"{name!r} is no name for a Hub repository", "It is user/name, or a name alone.")
    if not token:
        raise FTError(
            "the Hugging Face Hub wants a token",
            "Set HF_TOKEN to a token that may write (huggingface.co/settings/tokens).",
        )
    if not token.isascii():
        raise FTError("the token has letters that no token has", "Copy it again, without quotation marks.")


def whole_name(api: HfApi, name: str) -> str:
    """owner/name; a name alone is the token's owner's."""
    return name if "/" in name else f"{api.whoami()['name']}/{name}"


def is_private(api: HfApi, repo: str, kind: Kind) -> bool:
    return bool(api.repo_info(repo, repo_type=kind).private)


def arrived(api: HfApi, repo: str, kind: Kind, folder: Path) -> tuple[int, int]:
    """How many files of the folder the Hub has with the same bytes, and how many there are."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    there = {f.path: f for f in api.get_paths_info(repo, list(files), repo_type=kind)}
    same = 0
    for name, file in files.items():
        found = there.get(name)
        if found is None or found.size != file.stat().st_size:
            continue
        with file.open("rb") as source:
            same += found.lfs is None or found.lfs.sha256 == hashlib.file_digest(source, "sha256").hexdigest()
    return same, len(files)


@contextlib.contextmanager
def refusals(endpoint: str, kept: str) -> Iterator[None]:
    """Turns what the Hub and the way to it refuse into FTError, without the token; `kept` says what is not lost."""
    try:
        yield
    except _REFUSALS as error:
        raise _refused(error, endpoint, kept) from None


def _refused(error: Exception, endpoint: str, kept: str) -> FTError:
    page = f"{endpoint}/settings/tokens"
    if isinstance(error, errors.HFValidationError):
        return FTError(
            "the Hugging Face Hub takes no such name", "Up to 96 letters, digits and - _ . between them, as user/name."
        )
    if not isinstance(error, errors.HfHubHTTPError) or error.response is None:
        return FTError(
            f"the Hugging Face Hub at {endpoint} does not answer", f"Check the connection and try again; {kept}."
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
    return FTError(f"the Hugging Face Hub refuses it: {said}", f"{kept[0].upper()}{kept[1:]}.")
