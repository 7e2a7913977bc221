"""Whether the Hub hands a base model out to the person: asked before a run, not found in the middle of it. Torch-free.

A gated model shows its page to everybody and its files to those whom its owner let in. An answer is kept for a while,
so that a page may ask as often as it likes, and a Hub that does not answer is not waited for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi, errors
from huggingface_hub.utils import httpx

from ..errors import FTError
from ..recipe import BUILTIN, ModelRecipe
from . import download

PATIENCE_S = 4.0
"""For one answer of the Hub."""
_KEPT_S = {True: 600.0, False: 20.0}
"""How long an answer holds: that it is handed out, and anything else, which the person is about to change."""


@dataclass(frozen=True)
class Access:
    """What the Hub says."""

    refusal: FTError | None = None
    """Why the model cannot be had; None when it can, and when nobody knows."""
    reached: bool = True
    """Whether the Hub answered; not where it is not to be asked (HF_HUB_OFFLINE)."""


_answers: dict[tuple[str, str, str, str], tuple[float, Access]] = {}
"""Until when an answer holds, by endpoint, model, revision and the token's fingerprint."""


def of(wanted: ModelRecipe, relative_to: Path, token: str = "") -> Access:
    """Asks for a base that is an id on the Hub; a folder (relative to `relative_to`) and the built-in are here.

    Asks as whom `token` belongs to, as a download does.
    """
    if wanted.base == BUILTIN or (relative_to / wanted.base).is_dir() or huggingface_hub.constants.HF_HUB_OFFLINE:
        return Access()
    endpoint = huggingface_hub.constants.ENDPOINT
    whom = download.as_whom(token)
    key = (endpoint, wanted.base, wanted.revision, sha256(str(whom).encode()).hexdigest())
    until, known = _answers.get(key, (0.0, Access()))
    if time.monotonic() < until:
        return known
    answer = _asked(wanted.base, wanted.revision or "main", whom)
    if answer.refusal and download.here(wanted.base, wanted.revision):
        answer = Access()  # what is here whole needs no asking
    _answers[key] = (time.monotonic() + _KEPT_S[answer == Access()], answer)
    return answer


def require(wanted: ModelRecipe, relative_to: Path, token: str = "") -> None:
    """Raises FTError for a model that the Hub has not, or does not hand out to this token."""
    if refusal := of(wanted, relative_to, token).refusal:
        raise refusal


def _asked(repo: str, revision: str, token: str | bool) -> Access:
    try:
        about = HfApi(token=token).model_info(repo, revision=revision, timeout=PATIENCE_S)
        if about.gated:
            page = huggingface_hub.hf_hub_url(repo, "config.json", revision=revision)
            huggingface_hub.get_hf_file_metadata(page, token=token, timeout=PATIENCE_S)
    except errors.EntryNotFoundError:  # no config.json: not handed out is another answer
        return Access()
    except (errors.HfHubHTTPError, errors.HFValidationError, httpx.HTTPError, ConnectionError) as error:
        if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
            if error.response.status_code < 500 and error.response.status_code != 429:
                return Access(download.refused(repo, "" if revision == "main" else revision, error))
            return Access(reached=False)
        if isinstance(error, errors.HFValidationError):
            return Access(download.refused(repo, "", error))
        return Access(reached=False)
    return Access()
