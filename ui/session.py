"""Who asks, and which folder is theirs.

Off a Space there is one owner, `local`. On a Space the owner is the signed-in user, else a guest who is known by a
signed cookie and whose folder goes after a day. The owner always follows from the request; what a page sends names
projects, jobs and rows inside that owner's folder and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import cached_property
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import gradio as gr
import itsdangerous

from ft_core import jobs
from ft_core.errors import FTError
from ft_core.workspace import Project, Workspace

GUEST_DAY_S = 24 * 3600
"""How long a guest's folder and cookie live."""
_COOKIE = "ft_guest"
_GUEST = re.compile(r"guest-([0-9a-f]{8})-[0-9a-f]{32}")


@dataclass(frozen=True)
class House:
    """One running app: its FT_HOME, and whether strangers come to it."""

    home: Path
    on_space: bool

    @classmethod
    def of_environment(cls) -> House:
        return cls(Workspace.at().home, bool(os.environ.get("SPACE_ID")))

    @property
    def can_sign_in(self) -> bool:
        return self.on_space and bool(os.environ.get("OAUTH_CLIENT_ID"))

    def owner(self, request: Any) -> str:
        """`request` is Gradio's or starlette's. Raises FTError when a Space's visitor cannot be told from others."""
        if not self.on_space:
            return "local"
        request = getattr(request, "request", None) or request
        if user := _signed_in(request):
            return f"user-{hashlib.sha256(user.encode()).hexdigest()[:32]}"
        if guest := self.guest(request.cookies.get(_COOKIE, "")):
            return guest
        raise FTError(
            "Your browser keeps no cookie for this page, so your work could not be told from that of others.",
            "Open the Space in a tab of its own, or sign in.",
        )

    def workspace(self, request: Any) -> Workspace:
        return Workspace(self.home, self.owner(request))

    def project(self, request: Any, name: str) -> Project:
        """The owner's project `name`. Raises FTError when there is none."""
        if not name:
            raise FTError("No project is open.", "Choose one at the top of the page.")
        return self.workspace(request).project(name)

    @cached_property
    def _signer(self) -> itsdangerous.TimestampSigner:
        """Signs guests' cookies with a key of this FT_HOME, made once and readable by the app alone."""
        path = self.home / "cookie.key"
        if not path.exists():
            part = path.with_name(f".cookie.{secrets.token_hex(4)}.part")
            part.touch(mode=0o600)
            part.write_text(secrets.token_hex(32))
            try:
                os.link(part, path)  # the first of two processes wins
            except FileExistsError:
                pass
            part.unlink()
        return itsdangerous.TimestampSigner(path.read_text())

    def guest(self, cookie: str) -> str:
        """The guest whom a cookie names, or '' when it is old, forged or not there."""
        try:
            name = self._signer.unsign(cookie, max_age=GUEST_DAY_S).decode()
        except itsdangerous.BadSignature:
            return ""
        return name if _GUEST.fullmatch(name) else ""

    def new_guest(self) -> str:
        """A cookie for somebody who comes for the first time; the name says when, so that cleaning needs no list."""
        return self._signer.sign(f"guest-{int(time.time()):08x}-{secrets.token_hex(16)}").decode()

    def clean_guests(self) -> list[str]:
        """Removes the folders of guests whose day is over, ending what still runs there. Returns their names."""
        gone = []
        for folder in self.home.glob("guest-*"):
            match = _GUEST.fullmatch(folder.name)
            if match and int(match[1], 16) < time.time() - GUEST_DAY_S:
                workspace = Workspace(self.home, folder.name)
                for name in workspace.projects():
                    for job in workspace.project(name).jobs():
                        jobs.stop_now(job)
                shutil.rmtree(folder, ignore_errors=True)
                gone.append(folder.name)
        return gone


def _signed_in(request: Any) -> str:
    """The Hub's stable id of the signed-in user, '' for nobody. Read from Gradio's signed session cookie."""
    info = request.scope.get("session", {}).get("oauth_info") or {}
    if (info.get("expires_at") or time.time() + 1) < time.time():
        return ""
    return str(info.get("userinfo", {}).get("sub", ""))


def hub_token(request: Any, house: House) -> str:
    """The token to push with: the signed-in user's on a Space, the environment's elsewhere. Never stored."""
    if not house.on_space:
        return os.environ.get("HF_TOKEN", "")
    request = getattr(request, "request", None) or request
    info = request.scope.get("session", {}).get("oauth_info") or {}
    return str(info.get("access_token", "")) if _signed_in(request) else ""


def secrets_of(request: Any, house: House) -> dict[str, str] | None:
    """What a training may need of the person: the token, for a machine to rent and for a base that is handed out."""
    token = hub_token(request, house)
    return {"HF_TOKEN": token} if token else None


class GuestCookies:
    """Pure ASGI middleware: who opens the page of a Space without a cookie gets one.

    Only the page itself does that, not what it asks for later: a browser that keeps no cookie is told so, instead of
    being somebody else with each request.
    """

    def __init__(self, app: Any, house: House):
        self.app = app
        self.house = house

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or self.house.guest(_cookie(scope)):
            return await self.app(scope, receive, send)
        line = (
            f"{_COOKIE}={self.house.new_guest()}; Max-Age={GUEST_DAY_S}; Path=/; HttpOnly; Secure; SameSite=None; "
            "Partitioned"
        )

        async def send_with_cookie(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"set-cookie", line.encode())]}
            await send(message)

        await self.app(scope, receive, send_with_cookie)


def _cookie(scope: MutableMapping[str, Any]) -> str:
    header = b"; ".join(value for name, value in scope["headers"] if name == b"cookie").decode("latin-1")
    morsel = SimpleCookie(header).get(_COOKIE)
    return morsel.value if morsel else ""


def login_button(house: House) -> None:
    """Only where signing in works: elsewhere the component breaks the app."""
    if house.can_sign_in:
        gr.LoginButton("Sign in with Hugging Face", elem_id="login", size="sm")
