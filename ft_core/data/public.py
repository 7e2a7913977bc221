"""Files from public hosts by https, for a process whose network strangers must not look into (a Space).

The host's name is looked up once, every address that it has must be public, and the connection goes to the very
address that was looked at; a redirection is an address of its own and goes through the same.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import IO
from urllib.parse import urljoin, urlsplit

from ..errors import FTError
from . import archives
from .reading import Meter

MOST_BYTES = 1 << 30
_REDIRECTIONS = 5
_TIMEOUT_S = 30.0
_TRANSLATED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
"""IPv6 in which IPv4 addresses travel, inner ones too."""


def is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return (
        ip.is_global and not ip.is_multicast and not any(ip in net for net in _TRANSLATED if net.version == ip.version)
    )


def download(
    url: str,
    target: IO[bytes],
    meter: Meter,
    most: int = MOST_BYTES,
    allowed: Callable[[str], bool] = is_public,
    trusted: ssl.SSLContext | None = None,
) -> None:
    """Copies what stands at `url`. `allowed` judges IP addresses, `trusted` whose certificates count.

    Raises FTError for everything else than a whole file of up to `most` bytes.
    """
    for _ in range(_REDIRECTIONS + 1):
        connection, path = _connection(url, allowed, trusted or ssl.create_default_context())
        try:
            connection.request("GET", path, headers={"User-Agent": "ft-flow", "Accept-Encoding": "identity"})
            answer = connection.getresponse()
            if answer.status in (301, 302, 303, 307, 308):
                url = urljoin(url, answer.headers.get("Location", ""))
                continue
            if answer.status != 200:
                raise FTError(f"{_host(url)} answers {answer.status} {answer.reason}", "Check the address.")
            _take(answer, target, meter, most, _host(url))
            return
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FTError(f"{_host(url)} cannot be read: {error}", "Check the address, or try again later.") from None
        finally:
            connection.close()
    raise FTError(f"{_host(url)} sends from address to address", "Give the address of the file itself.")


def _take(answer: http.client.HTTPResponse, target: IO[bytes], meter: Meter, most: int, host: str) -> None:
    size = int(answer.headers.get("Content-Length") or 0)
    meter.total += size
    meter.begin(size)
    meter.follow(lambda: target.tell() / size if size else 0.0)
    reason, came = ("", size) if size > most else archives.copied(answer, target, meter, most + 1)
    if came > most:
        raise FTError(f"the file at {host} is larger than {most >> 20:,} MB", "Import a part of it.")
    if reason or came < size:
        raise FTError(f"the file came from {host} only in part ({came:,} of {size:,} bytes)", "Try again.")


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the address"


def _connection(
    url: str, allowed: Callable[[str], bool], trusted: ssl.SSLContext
) -> tuple[http.client.HTTPSConnection, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        raise FTError("the address cannot be read", "It looks like https://example.org/rows.jsonl.") from None
    if parts.scheme != "https" or not host or parts.username is not None:
        raise FTError("only https:// addresses are read here", "It looks like https://example.org/rows.jsonl.")
    path = parts.path or "/"
    if not (path + parts.query).isascii() or any(c <= " " for c in path + parts.query):
        raise FTError("the address has letters that an address cannot have", "Copy it again from the browser's bar.")
    there = _Connection(host, port, _address(host, port, allowed), trusted)
    return there, f"{path}?{parts.query}" if parts.query else path


class _Connection(http.client.HTTPSConnection):
    """To an address that was looked at, whatever the name means a moment later."""

    def __init__(self, host: str, port: int, address: str, trusted: ssl.SSLContext):
        super().__init__(host, port, timeout=_TIMEOUT_S, context=trusted)
        self._looked_at = address
        self._trusted = trusted

    def connect(self) -> None:
        plain = socket.create_connection((self._looked_at, self.port), self.timeout)
        self.sock = self._trusted.wrap_socket(plain, server_hostname=self.host)


def _address(host: str, port: int, allowed: Callable[[str], bool]) -> str:
    try:
        found = [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise FTError(f"there is no host {host}", f"Check the address ({error}).") from None
    if not all(map(allowed, found)):
        raise FTError(f"{host} is no public host, and not read from a Space", "Give an address on the open internet.")
    return found[0]
