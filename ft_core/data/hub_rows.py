"""Rows of a dataset of the Hugging Face Hub, streamed by `datasets`: no more of it comes here than is read.

Importing this loads `datasets`, which takes seconds: a job's process and the command line do, the page never.

"Random" of a stream means: the files of the split are taken in an order that the seed draws, and each row is drawn
from the next 10,000. So 1,000 rows of a split that is one large file come from about its first 11,000 rows, and of a
split of many files from one or a few of them. The same seed draws the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import datasets
import huggingface_hub
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from huggingface_hub import errors
from huggingface_hub.utils import httpx

from ..errors import FTError
from .reading import HubRows, Record, Table

BUFFER = 10_000
"""Rows that a random one is drawn from."""

_REFUSALS = (
    DatasetsError,
    errors.HfHubHTTPError,
    errors.HFValidationError,
    errors.LocalEntryNotFoundError,
    errors.OfflineModeIsEnabled,
    httpx.HTTPError,
    ConnectionError,
    FileNotFoundError,
    PermissionError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What `datasets` and what it stands on raise for a dataset that is not there, not to be had, or not readable."""

Token = str | bool | None


@dataclass(frozen=True)
class About:
    """A dataset before a row of it is read."""

    repo: str
    licence: str
    """As its card says, '' when that says nothing."""
    gated: bool
    configs: dict[str, tuple[str, ...]]
    """Configuration -> its splits."""
    config: str
    """The configuration that the rest is about."""
    split: str
    columns: tuple[str, ...]
    rows: int
    """Of the split, 0 when nobody says."""


def about(wanted: HubRows, token: Token = None) -> About:
    """What there is to choose from. Raises FTError for a dataset that is not there or not to be had."""
    try:
        licence, gated = _card(wanted.repo, token)
        names = datasets.get_dataset_config_names(wanted.repo, token=token)
        config = _config(wanted, names)
        configs = {name: () for name in names}
        configs[config] = tuple(datasets.get_dataset_split_names(wanted.repo, config, token=token))
        split = _split(wanted, configs[config])
        stream = _stream(wanted.repo, config, split, token)
        columns = stream.column_names or next(iter(stream), {})
        known = getattr((stream.info.splits or {}).get(split), "num_examples", 0)
    except _REFUSALS as error:
        raise _refused(wanted, error) from None
    return About(
        wanted.repo, licence, gated, configs, config, split, tuple(columns), getattr(known, "num_examples", 0)
    )


def table(wanted: HubRows, token: Token = None) -> Table:
    """The rows that are wanted, under a name that says configuration, split and licence. Raises as `about`."""
    try:
        licence, _ = _card(wanted.repo, token)
        config = _config(wanted, datasets.get_dataset_config_names(wanted.repo, token=token))
        split = _split(wanted, datasets.get_dataset_split_names(wanted.repo, config, token=token))
        stream = _stream(wanted.repo, config, split, token)
    except _REFUSALS as error:
        raise _refused(wanted, error) from None
    drawn = f", random with seed {wanted.seed}" if wanted.random else ""
    name = f"hub:{wanted.repo} ({config}, {split}{drawn}; licence {licence or 'not said'})"
    return Table(name, _records(wanted, stream))


def _stream(repo: str, config: str, split: str, token: Token) -> datasets.IterableDataset:
    stream = datasets.load_dataset(repo, config, split=split, streaming=True, token=token)
    return stream.decode(False)  # pictures and sounds stay what they are in the file


def _records(wanted: HubRows, stream: datasets.IterableDataset) -> Iterator[Record]:
    if wanted.random:
        stream = stream.shuffle(seed=wanted.seed, buffer_size=BUFFER)
    try:
        yield from enumerate(islice(stream, wanted.rows or None), 1)
    except _REFUSALS as error:
        raise _refused(wanted, error) from None


def _card(repo: str, token: Token) -> tuple[str, bool]:
    """Licence, and whether the owner wants to be asked first."""
    info = huggingface_hub.HfApi().dataset_info(repo, token=token)
    licence: Any = (info.card_data or {}).get("license") or ""
    return ", ".join(licence) if isinstance(licence, list) else str(licence), bool(info.gated)


def _config(wanted: HubRows, names: list[str]) -> str:
    if not wanted.config and len(names) > 1 and "default" not in names:
        raise FTError(f"{wanted.repo} has {len(names)} configurations", f"Choose one of {_some(names)}.")
    if wanted.config and wanted.config not in names:
        raise FTError(f"{wanted.repo} has no configuration {wanted.config!r}", f"It has {_some(names)}.")
    return wanted.config or ("default" if "default" in names else names[0])


def _split(wanted: HubRows, names: tuple[str, ...] | list[str]) -> str:
    if not wanted.split and len(names) > 1 and "train" not in names:
        raise FTError(f"{wanted.repo} has {len(names)} splits", f"Choose one of {_some(names)}.")
    if wanted.split and wanted.split not in names:
        raise FTError(f"{wanted.repo} has no split {wanted.split!r}", f"It has {_some(names)}.")
    return wanted.split or ("train" if "train" in names else names[0])


def _some(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _refused(wanted: HubRows, error: Exception) -> FTError:
    repo, page = wanted.repo, f"{huggingface_hub.constants.ENDPOINT}/datasets/{wanted.repo}"
    for cause in _causes(error):
        match cause:
            case errors.GatedRepoError():
                return FTError(
                    f"the dataset {repo} is gated: its owner wants to be asked first",
                    f"Ask for access on {page}, then give a token of that account (HF_TOKEN).",
                )
            case errors.RepositoryNotFoundError() | errors.HFValidationError():
                return _not_there(repo)
            case errors.HfHubHTTPError() if cause.response is not None:
                return FTError(f"the Hugging Face Hub refuses {repo}: {cause.server_message or cause}", f"See {page}.")
    if isinstance(error, DatasetNotFoundError):
        gated = "gated" in str(error)
        return FTError(f"the dataset {repo} is gated: its owner wants to be asked first", f"Ask for access on {page}, "
                       "then give a token of that account (HF_TOKEN).") if gated else _not_there(repo)  # fmt: skip
    if isinstance(error, (ConnectionError, httpx.HTTPError, *_OFFLINE)):
        return FTError(
            f"the dataset {repo} cannot be had: the Hugging Face Hub cannot be reached",
            "Check the connection and try again; files on this machine can be imported without one.",
        )
    said = (str(error) or type(error).__name__).splitlines()[0][:300]
    hint = f"See {page}. Its files can also be downloaded there and imported one by one."
    if "scripts are no longer supported" in said:
        return FTError(f"the dataset {repo} is a program that would have to be run here, which is not done", hint)
    return FTError(f"the dataset {repo} cannot be read: {said}", hint)


_OFFLINE = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _not_there(repo: str) -> FTError:
    return FTError(
        f"there is no dataset {repo!r} on the Hugging Face Hub",
        "It is owner/name, as on its page; a private one needs a token that may read it (HF_TOKEN).",
    )
