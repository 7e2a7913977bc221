"""A real app in a process of its own, and a real browser that looks at it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ft_core.workspace import Workspace

from .runs import Runs, runs_of

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
         " --disable-component-update --disable-sync").split()  # fmt: skip
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
PATIENCE_MS = 20_000
"""For what is there at once unless other work has the machine."""
expect.set_options(timeout=PATIENCE_MS)


@dataclass
class App:
    """`python app.py` on a home; it can be ended and started again on the same port."""

    home: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/?project=Roastery+help+desk"

    def start(self) -> None:
        environment = {**os.environ, "FT_HOME": str(self.home), "PORT": str(self.port), **self.environment}
        self.home.mkdir(parents=True, exist_ok=True)
        log = (self.home / "app.log").open("ab")
        self.process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).read()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert self.process.poll() is None, (self.home / "app.log").read_text()
                assert time.monotonic() < deadline, "the app did not answer in a minute"
                time.sleep(0.05)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="package")
def start_app(builtin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., App]]:
    """Starts apps with the built-in model in place; they end with the browser tests."""
    started: list[App] = []

    def start(name: str, **environment: str) -> App:
        workspace = Workspace.at(tmp_path_factory.mktemp(name) / "home")
        workspace.builtin_model.symlink_to(builtin, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        app = App(workspace.home, port, environment)
        app.start()
        started.append(app)
        return app

    yield start
    for app in started:
        app.end()


@pytest.fixture(scope="package")
def app(start_app: Callable[..., App]) -> App:
    """One app for the tests that train nothing; each opens a project of its own or leaves the rows as they were."""
    return start_app("page")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page that remembers what went wrong in it, and which hosts it asked."""

    page: Page
    wrong: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def listen(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.on("request", lambda r: self.hosts.add(r.url.split("/")[2]) if "://" in r.url else None)
        self.page.on("response", lambda r: self.wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)

    def open(self, url: str) -> Page:
        self.page.goto(url)
        self.page.wait_for_selector(".ft-header")
        return self.page

    def is_well(self) -> None:
        assert self.wrong == []
        assert {h.rpartition(":")[0] for h in self.hosts} == {"127.0.0.1"}
        assert self.page.locator(".ft-error:visible").count() == 0


@pytest.fixture
def tab(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """Opens tabs; every one must have been well at the end of the test."""
    opened: list[Tab] = []

    def new(viewport: dict = WIDE) -> Tab:
        one = Tab(browser.new_page(viewport=viewport))
        one.listen()
        opened.append(one)
        return one

    yield new
    for one in opened:
        one.page.close()


@pytest.fixture
def runs(app: App, request: pytest.FixtureRequest) -> Iterator[Runs]:
    """In a project named after the test."""
    yield from runs_of(app, re.sub(r"\W+", " ", request.node.name)[:50].strip())


def save(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True, animations="disabled")


def serious(page: Page, where: str) -> list[str]:
    """What axe finds to be serious or critical in a part of the page, its colours being where they are going."""
    page.evaluate("document.getAnimations().filter((a) => a instanceof CSSTransition).forEach((a) => a.finish())")
    found = Axe().run(page, context=where, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"][:3]
    ]
