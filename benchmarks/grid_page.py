"""Our page under benchmarks.grid: the real app in a process of its own, and a headless browser that looks at it."""

from __future__ import annotations

import os
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote_plus

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
         " --disable-component-update --disable-sync").split()  # fmt: skip
WIDE = {"width": 1280, "height": 900}

_EDITED = "SELECT 1 FROM conversations WHERE id = (SELECT MAX(id) FROM conversations) AND messages LIKE ?"
_UNDONE = "SELECT 1 FROM operations WHERE state = 'undone' GROUP BY state HAVING COUNT(*) = ?"
_WORDS = ("insulation", "permit", "storey", "Zaragoza", "fire")

# Resolves with milliseconds when the viewport is full of rows, each with the text of its own place, and a frame later.
# `act` says what begins it; `before` is the place that was at the top.
_PAINTED = """([act, at, asked]) => new Promise(resolve => {
  const view = () => document.querySelector('.g-view');
  const rows = () => {
    const box = view()?.getBoundingClientRect();
    if (!box || !box.height) return [];
    return [...view().querySelectorAll('.g-rows [role=row]')].filter(row => {
      const r = row.getBoundingClientRect();
      return r.bottom > box.top + 1 && r.top < box.bottom - 1;
    });
  };
  const number = row => +(row.textContent.match(/Case (\\d+): /)?.[1] ?? -1);
  const full = now => {
    const seen = rows();
    if (!seen.length || now.join() === was) return false;
    const box = view().getBoundingClientRect();
    const last = seen[seen.length - 1].getBoundingClientRect();
    if (last.bottom < box.bottom - last.height - 20) return false;
    return asked === 'any' ? now.every(n => n >= 0) : now.every((n, i) => n >= 0 && n === now[0] + i);
  };
  const was = rows().map(number).join();
  const began = performance.now();
  if (act === 'scroll') view().scrollTop = at * (view().scrollHeight - view().clientHeight);
  else if (act === 'search') {
    document.querySelector('.g-search').value = at;
    document.querySelector('.g-search').dispatchEvent(new Event('input', {bubbles: true}));
  } else document.querySelector(act).click();
  const look = () => {
    const now = rows().map(number);
    if (full(now)) requestAnimationFrame(() => resolve([performance.now() - began, now[0]]));
    else requestAnimationFrame(look);
  };
  look();
})"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def app(home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The app's address and process."""
    port = free_port()
    environment = {**os.environ, "FT_HOME": str(home), "PORT": str(port)}
    with (home / "app.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        answers(f"http://127.0.0.1:{port}/", lambda: process.poll() is None)
        yield f"http://127.0.0.1:{port}/", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def answers(url: str, alive: Callable[[], bool]) -> None:
    """Waits until somebody does."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as page:
                page.read()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if not alive():
                sys.exit("error: the app ended before it answered")
            time.sleep(0.05)


@contextmanager
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


def seconds_to_disk(path: Path, do: Callable[[], object], query: str, *values: object) -> float:
    """From just before `do` until `query` finds something in the file, read as another program would."""
    seen: list[float] = []
    watching = threading.Event()

    def watch() -> None:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        watching.set()
        while time.perf_counter() < began + 120:
            if db.execute(query, values).fetchone():
                seen.append(time.perf_counter())
                break
            time.sleep(0.001)
        db.close()

    began = time.perf_counter()
    thread = threading.Thread(target=watch)
    thread.start()
    watching.wait()
    began = time.perf_counter()
    do()
    thread.join()
    if not seen:
        sys.exit(f"error: {path} never had what was to be kept")
    return seen[0] - began


def heap_mb(page: Page) -> float:
    """What the page's JavaScript holds, after the garbage is collected."""
    tools = page.context.new_cdp_session(page)
    tools.send("Performance.enable")
    tools.send("HeapProfiler.collectGarbage")
    metrics = {m["name"]: m["value"] for m in tools.send("Performance.getMetrics")["metrics"]}
    tools.detach()
    return metrics["JSHeapUsedSize"] / 1e6


def opened(browser: Browser, url: str, project: str) -> Page:
    """The page of a project, on a tab that is not Data."""
    page = browser.new_page(viewport=WIDE)
    page.set_default_timeout(120_000)
    page.goto(f"{url}?project={quote_plus(project)}")
    page.wait_for_selector(".ft-header")
    page.click("#tab-train-button")
    page.wait_for_timeout(700)
    return page


def empty(browser: Browser, url: str, project: str) -> dict[str, float]:
    """Heap with a project of no rows, without the Data tab and with it."""
    page = opened(browser, url, project)
    without = heap_mb(page)
    page.click("#tab-data-button")
    page.wait_for_selector(".g-start:visible")
    found = {"heap_without_data_tab_mb": without, "heap_empty_mb": heap_mb(page)}
    page.close()
    return found


def measure(browser: Browser, url: str, project: str, path: Path, rows: int, tries: int) -> dict[str, object]:
    """`path` is the project's store, with `rows` rows of grid_rows."""
    first, load = [], []
    for _ in range(tries):
        began = time.perf_counter()
        page = opened(browser, url, project)
        load.append(time.perf_counter() - began - 0.7)
        first.append(page.evaluate(_PAINTED, ["#tab-data-button", 0, "in order"])[0] / 1000)
        page.wait_for_timeout(300)
        if len(first) < tries:
            page.close()
    found: dict[str, object] = {"page_load_s": load, "first_rows_s": first}
    heap = heap_mb(page)
    dice = random.Random(7)
    jumps, landed = [], []
    for _ in range(5 * tries):
        ms, at = page.evaluate(_PAINTED, ["scroll", dice.random(), "in order"])
        jumps.append(ms / 1000)
        landed.append(at)
        page.wait_for_timeout(60)
    found |= {"jump_s": jumps, "jump_worst_s": max(jumps), "jumps_from": min(landed), "jumps_to": max(landed)}
    found["heap_first_rows_mb"], found["heap_after_jumps_mb"] = heap, heap_mb(page)
    found["edit_s"], found["undo_s"] = _edits(page, path, tries)
    found |= _asking(page, tries)
    found["heap_mb"] = heap_mb(page)
    page.close()
    return {
        name: statistics.median(v) if isinstance(v, list) and name.endswith("_s") else v for name, v in found.items()
    }


def _edits(page: Page, path: Path, tries: int) -> tuple[list[float], list[float]]:
    edits, undone = [], []
    for attempt in range(tries):
        page.evaluate(_PAINTED, ["scroll", (attempt + 0.5) / (tries + 1), "in order"])
        page.locator(".g-rows [role=gridcell]", has_text=": ").nth(3).dblclick()
        page.keyboard.press("End")
        page.keyboard.type(f" Edit {attempt}.")
        page.wait_for_timeout(500)  # as somebody who types would
        edits.append(seconds_to_disk(path, lambda: page.keyboard.press("Enter"), _EDITED, f"% Edit {attempt}.%"))
        page.wait_for_timeout(500)
    for attempt in range(tries):
        undone.append(seconds_to_disk(path, lambda: page.click("[data-act=undo]"), _UNDONE, attempt + 1))
        page.wait_for_timeout(500)
    return edits, undone


def _asking(page: Page, tries: int) -> dict[str, list[float]]:
    """Seconds until the rows are there, the first time (`cold_`) and in the others; between them all rows again."""
    found: dict[str, list[float]] = {}
    page.evaluate("document.querySelector('.g-view').scrollTop = 0")
    page.wait_for_timeout(500)
    for attempt in range(tries):
        for name, begin, end in (
            ("sort_s", ["#grid [role=columnheader][data-col=turns]", 0, "any"], 2),
            ("view_s", ["#grid [data-view=review]", 0, "any"], "#grid [data-view=all]"),
            ("search_s", ["search", _WORDS[attempt % len(_WORDS)], "any"], ["search", "", "in order"]),
        ):
            seconds = page.evaluate(_PAINTED, begin)[0] / 1000
            found.setdefault(f"cold_{name}" if attempt == 0 else name, []).append(seconds)
            if end == 2:  # ascending, descending, none
                page.click(begin[0])
                page.wait_for_timeout(300)
                page.click(begin[0])
            else:
                page.evaluate(_PAINTED, end if isinstance(end, list) else [end, 0, "in order"])
            page.wait_for_timeout(300)
    return found
