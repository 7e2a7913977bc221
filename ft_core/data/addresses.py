"""Files at an address, through fsspec: https://, s3://, hf://, ... Each is copied to a temporary file, and then read.

On a Space the address is a stranger's and the network is the Space's, so there only https to public hosts is fetched
(see public): no other protocol, no machine of an inner network, and no more than a limit.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

import fsspec
import httpx
from fsspec.registry import known_implementations

from ..errors import FTError
from ..workspace import on_a_space
from . import archives, files, public
from .reading import Meter

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
_OF_DRIVERS = (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError"), ("gcsfs.retry", "HttpError"))
"""What drivers raise that is no OSError; asked only when the driver is loaded."""


def is_one(text: str) -> bool:
    return bool(_ADDRESS.match(text))


def file_name(address: str) -> str:
    """The last part of the path."""
    return PurePosixPath(unquote(urlsplit(address).path)).name or urlsplit(address).netloc or address


def shown(address: str) -> str:
    """An address for people, without its query, where keys may stand."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextlib.contextmanager
def copied(address: str, meter: Meter, token: str | bool | None = None, preview: bool = False) -> Iterator[Path]:
    """A temporary copy, under a name with the same ending; for a preview the beginning of a text will do.

    `token` is for hf://.

    Raises FTError when the file is not there, may not be read, or is not fetched from here.
    """
    check(address)
    with tempfile.TemporaryDirectory(prefix="import-") as folder:
        path = Path(folder) / f"source{_ending(file_name(address))}"
        with path.open("wb") as target:
            if on_a_space():
                public.download(address, target, meter)
            else:
                text = files.kind_of(path.name.removesuffix(".gz")) in files.TEXT_KINDS
                _download(address, target, meter, token, archives.PREVIEW if preview and text else sys.maxsize)
        yield path


def check(address: str) -> None:
    """Raises FTError for an address that is refused before anything is asked."""
    protocol = address.partition("://")[0].lower()
    if "@" in urlsplit(address).netloc:
        raise FTError(
            "an address with a password in it is not taken, because addresses are kept with the rows",
            "Give the password where the driver looks for it: for s3:// that is AWS_ACCESS_KEY_ID and its kin.",
        )
    if on_a_space() and protocol != "https":
        raise FTError(
            f"{protocol}:// is not read on a Space: it would be read with the Space's own rights",
            "https:// and datasets of the Hub (hub:owner/name) can be read here; anything else on your own machine.",
        )


def _ending(name: str) -> str:
    suffixes = PurePosixPath(name).suffixes
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def _download(address: str, target: IO[bytes], meter: Meter, token: str | bool | None, most: int) -> None:
    protocol, name = address.partition("://")[0].rpartition("::")[2], shown(address)
    options = {"token": token} if protocol == "hf" and token is not None else {}
    try:
        system, path = fsspec.core.url_to_fs(address, **options)
        with system.open(path, "rb") as source:
            size = getattr(source, "size", None) or 0
            meter.total += size
            meter.begin(size)
            meter.follow(lambda: target.tell() / size if size else 0.0)
            reason, _ = archives.copied(source, target, meter, most)
    except ImportError as error:
        raise FTError(f"{protocol}:// needs a package that is not installed: {error}", _package(protocol)) from None
    except FileNotFoundError:
        raise FTError(f"there is no file {name}", "Check the address; one that is private needs a login.") from None
    except failures() as error:
        raise FTError(f"{name} cannot be read: {said(error)}", "Check address, login and network.") from None
    if reason:
        raise FTError(f"{name} was not copied to its end: {reason}", "Try again.")


def _package(protocol: str) -> str:
    said = known_implementations.get(protocol, {}).get("err", "")
    package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}.get(
        protocol
    )
    return f"pip install {package}" if package else said or "See the documentation of fsspec."


def failures() -> tuple[type[Exception], ...]:
    """What drivers raise when a place cannot be reached, read or written."""
    loaded = [getattr(sys.modules[m], n) for m, n in _OF_DRIVERS if hasattr(sys.modules.get(m), n)]
    return (OSError, ValueError, httpx.HTTPError, *loaded)


def said(error: Exception) -> str:
    """The first line of such an error, without queries of addresses."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"https?://\S+", lambda found: shown(found[0]), text)[:200]
