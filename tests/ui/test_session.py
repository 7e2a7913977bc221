"""Who owns what: by the request alone, whatever a page sends."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from ft_core.errors import FTError
from ft_core.workspace import Workspace
from ui import session
from ui.session import GuestCookies, House


def request(cookie: str = "", oauth: dict | None = None) -> SimpleNamespace:
    scope = {"session": {"oauth_info": oauth}} if oauth else {}
    return SimpleNamespace(cookies={"ft_guest": cookie} if cookie else {}, scope=scope)


def test_off_a_space_there_is_one_owner(workspace: Workspace) -> None:
    house = House(workspace.home, on_space=False)
    assert house.owner(request(oauth={"userinfo": {"sub": "42"}})) == "local"


def test_guests_are_told_apart_and_cannot_be_forged(workspace: Workspace) -> None:
    house = House(workspace.home, on_space=True)
    one, two = house.new_guest(), house.new_guest()
    assert house.owner(request(one)) != house.owner(request(two))
    assert house.owner(request(one)) == House(workspace.home, True).owner(request(one))  # the key outlives a restart
    name, _, _ = one.partition(".")
    for forged in (
        "",
        "local",
        name,
        f"{one[:-5]}{'A' if one[-5] != 'A' else 'B'}{one[-4:]}",  # not the last letter: some of its bits say nothing
        house._signer.sign("../x").decode(),
    ):
        with pytest.raises(FTError, match="cookie"):
            house.owner(request(forged))
    assert (workspace.home / "cookie.key").stat().st_mode & 0o077 == 0


def test_a_signed_in_user_is_the_same_on_every_device(workspace: Workspace) -> None:
    house = House(workspace.home, on_space=True)
    info = {"userinfo": {"sub": "../../etc"}, "expires_at": time.time() + 60, "access_token": "hf_secret"}
    owner = house.owner(request(oauth=info))
    assert owner == house.owner(request(house.new_guest(), oauth=info))
    assert "/" not in owner and ".." not in owner
    assert session.hub_token(request(oauth=info), house) == "hf_secret"
    stale = {**info, "expires_at": time.time() - 1}
    assert house.owner(request(house.new_guest(), oauth=stale)).startswith("guest-")
    assert session.hub_token(request(oauth=stale), house) == ""


def test_one_owner_cannot_open_the_project_of_another(workspace: Workspace) -> None:
    house = House(workspace.home, on_space=True)
    mine, other = request(house.new_guest()), request(house.new_guest())
    house.workspace(mine).project("secret plans", create=True)
    assert house.project(mine, "secret plans").name == "secret plans"
    for name in ("secret plans", f"../{house.owner(mine)}/secret plans", ".."):
        with pytest.raises(FTError):
            house.project(other, name)


def test_guests_go_after_a_day(workspace: Workspace) -> None:
    house = House(workspace.home, on_space=True)
    old = f"guest-{int(time.time()) - session.GUEST_DAY_S - 1:08x}-{'a' * 32}"
    fresh = house.owner(request(house.new_guest()))
    for owner in (old, fresh, "user-1", "local"):
        Workspace(workspace.home, owner).project("p", create=True)
    assert house.clean_guests() == [old]
    assert {p.name for p in workspace.home.iterdir() if p.is_dir()} >= {fresh, "user-1", "local"}
    assert not (workspace.home / old).exists()


def test_the_page_gives_a_cookie_once_and_nothing_else_does(workspace: Workspace) -> None:
    house = House(workspace.home, on_space=True)

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def headers(path: str, cookie: bytes = b"") -> list:
        sent = []

        async def send(message) -> None:
            sent.append(message)

        scope = {"type": "http", "path": path, "headers": [(b"cookie", cookie)] if cookie else []}
        with ThreadPoolExecutor(1) as pool:  # Playwright's loop may run in this one
            pool.submit(lambda: asyncio.run(GuestCookies(app, house)(scope, None, send))).result()
        return sent[0]["headers"]

    assert headers("/gradio_api/queue/join") == []
    line = dict(headers("/"))[b"set-cookie"].decode()
    for part in ("HttpOnly", "Secure", "SameSite=None", "Partitioned"):
        assert part in line
    cookie = line.partition(";")[0]
    assert house.guest(cookie.partition("=")[2]).startswith("guest-")
    assert headers("/", cookie.encode()) == []
