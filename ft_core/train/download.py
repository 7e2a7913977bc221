"""Models from the Hugging Face Hub: safetensors weights, tokenizer and configuration, never a pickle.

A Hub that cannot be reached, a name that it does not have and a model that asks for consent each become a sentence.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors
from huggingface_hub.utils import httpx
from tqdm import tqdm

from ..errors import FTError
from ..workspace import on_a_space

Report = Callable[[float, str], None]
"""Told the share that is done (0 to 1) and what goes on."""

SMALL_FILES = ["*.json", "*.jinja", "tokenizer.model", "LICENSE*", "README.md"]
"""Tokenizer, template, configuration and the card, which names the licence: what a page needs of a model."""


def snapshot(
    repo: str, revision: str, report: Report, into: Path | None = None, weights: bool = True, token: str = ""
) -> Path:
    """The folder of `repo` at `revision` ('' for its main branch): in the Hub's own cache, or copied to `into`.

    Asks as whom `token` belongs to. Raises FTError for everything that the Hub or the way there refuses.
    """
    try:
        folder = huggingface_hub.snapshot_download(
            repo,
            revision=revision or None,
            local_dir=into,
            token=as_whom(token),
            allow_patterns=[*SMALL_FILES, *(["*.safetensors"] if weights else [])],
            ignore_patterns=["*/*"],  # other formats lie in folders of their own
            tqdm_class=_reporting(report, repo),
        )
    except (errors.HFValidationError, *_REFUSALS) as error:
        raise refused(repo, revision, error) from None
    return Path(folder)


def as_whom(token: str) -> str | bool:
    """The token to ask with. Without one of the person it is the environment's, or that of the machine's login; but on
    a Space that is its owner's, and who asks may be anybody: there it is none."""
    return token or (not on_a_space() and huggingface_hub.get_token()) or False


class Gated(FTError):
    """The owner of a model lets some people in, and the one who asks is not among them, or is not known."""


_REFUSALS = (
    errors.HfHubHTTPError,
    errors.LocalEntryNotFoundError,
    errors.OfflineModeIsEnabled,
    errors.CachedRepoTreeNotFoundError,
    httpx.HTTPError,
)


def refused(repo: str, revision: str, error: Exception) -> FTError:
    """What the Hub, or the way to it, says no with; for people."""
    page = f"{huggingface_hub.constants.ENDPOINT}/{repo}"
    match error:
        case errors.GatedRepoError():
            return Gated(
                f"the model {repo} is gated: its owner wants to be asked first",
                f"Ask for access on {page}, then set HF_TOKEN to a token of that account.",
            )
        case errors.RevisionNotFoundError():
            return FTError(f"the model {repo} has no revision {revision!r}", f"Its revisions stand on {page}.")
        case errors.RepositoryNotFoundError() | errors.HFValidationError():
            return FTError(
                f"there is no model {repo!r}, neither as a folder here nor on the Hugging Face Hub",
                "Check the name; a private model needs HF_TOKEN.",
            )
        case errors.HfHubHTTPError():
            return FTError(f"the Hugging Face Hub refuses {repo}: {error.server_message or error}", f"See {page}.")
    return FTError(
        f"the model {repo} is not on this machine and the Hugging Face Hub cannot be reached",
        "Check the name and the connection; a folder with the model works without one.",
    )


def here(repo: str, revision: str) -> Path | None:
    """The folder of a model that the Hub's own cache has whole, weights and all; the Hub is not asked."""
    try:
        folder = Path(huggingface_hub.snapshot_download(repo, revision=revision or None, local_files_only=True))
        require_whole(folder, repo)
    except (errors.HFValidationError, errors.LocalEntryNotFoundError, FTError, *_REFUSALS):
        return None
    return folder


def require_whole(folder: Path, name: str) -> None:
    """Raises FTError when `folder` lacks a configuration that can be read, or a weight file that it names."""
    index = folder / "model.safetensors.index.json"
    files = {"model.safetensors"}
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if index.exists():
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        whole = all((folder / file).exists() for file in files)
    except (OSError, ValueError, KeyError):  # not there, or no JSON
        whole = False
    if not whole:
        raise FTError(
            f"{name} has no whole model: config.json and safetensors weights are needed",
            "Weights in other formats (pickles) are not loaded; choose another model or convert it.",
        )


def _reporting(report: Report, repo: str) -> type[tqdm]:
    """A progress bar that nobody sees, which reports the bytes of all files together."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **{**options, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.unit == "B" and self.total:
                report(min(self.n / self.total, 1.0), f"downloading {repo}, {self.total / 1e6:,.0f} MB")
            return shown

    return Bar
