"""The peer of benchmarks.grid: the same rows in gr.Dataframe, each edit kept in SQLite, as far as one can go with it.

Its `edit` event misses rows that are deleted or added and cells that are cleared, so an app that wants to lose nothing
listens to `input`, which brings the whole table, and looks for what is not as before.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
import statistics
import time
from pathlib import Path

from playwright.sync_api import Browser

from .grid_page import WIDE, answers, free_port, heap_mb, seconds_to_disk
from .grid_rows import texts

_HEADERS = ["id", "prompt", "response", "status", "split", "turns"]
_WIDTHS = ["60px", "250px", "600px", "100px", "80px", "60px"]
_CALM_MS = 500
"""For the table to come to rest, in times that do not count."""
_EDITED = "SELECT 1 FROM rows WHERE id = ? AND response LIKE ?"


def measure(browser: Browser, folder: Path, rows: int, tries: int) -> dict[str, float]:
    """`edit_s` from Enter to the row in SQLite, a median; `load_s` from opening the page to its first rows."""
    path, port = folder / "frame.sqlite", free_port()
    _keep(path, rows)
    app = multiprocessing.get_context("spawn").Process(target=serve, args=(path, port), daemon=True)
    app.start()
    try:
        answers(f"http://127.0.0.1:{port}/", app.is_alive)
        page = browser.new_page(viewport=WIDE)
        page.set_default_timeout(120_000)
        began = time.perf_counter()
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector(f'[data-testid="cell-{2 * tries}-2"]')
        load = time.perf_counter() - began
        page.wait_for_timeout(3 * _CALM_MS)
        edits = []
        for row in range(2 * tries, 0, -2):  # upwards: the one edited last stays open over those below
            page.locator(f'.virtual-row [data-testid="cell-{row}-2"]').dblclick(force=True)
            page.wait_for_timeout(_CALM_MS)
            page.keyboard.press("End")
            page.keyboard.type(f" Edit {row}.")
            page.wait_for_timeout(_CALM_MS)
            enter = lambda: page.keyboard.press("Enter")  # noqa: E731
            edits.append(seconds_to_disk(path, enter, _EDITED, row, f"% Edit {row}."))
            _quiet(path)
        heap = heap_mb(page)
        page.close()
    finally:
        app.terminate()
        app.join()
    return {"rows": rows, "load_s": load, "edit_s": statistics.median(edits), "heap_mb": heap}


def serve(path: Path, port: int) -> None:
    import gradio as gr
    import pandas as pd

    db = sqlite3.connect(path, check_same_thread=False)
    stored = pd.DataFrame(db.execute("SELECT * FROM rows ORDER BY id").fetchall(), columns=_HEADERS)

    def keep(frame: pd.DataFrame) -> None:
        """What is not as before goes to the file."""
        nonlocal stored
        frame = frame.set_axis(_HEADERS, axis=1).astype(stored.dtypes)
        changed = frame[(frame != stored).any(axis=1)]
        sets = ", ".join(f"{name} = ?" for name in _HEADERS[1:])
        for id, *values in changed.itertuples(index=False):
            db.execute(f"UPDATE rows SET {sets} WHERE id = ?", [*values, int(id)])
        db.execute("UPDATE calls SET n = n + 1")
        db.commit()
        stored = frame

    with gr.Blocks(analytics_enabled=False) as demo:
        table = gr.Dataframe(headers=_HEADERS, interactive=True, static_columns=[0], column_widths=_WIDTHS)
        demo.load(lambda: stored, None, table)
        table.input(keep, [table], None)
    demo.launch(server_port=port, quiet=True, ssr_mode=False, run_history=False)


def _keep(path: Path, rows: int) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(
        "CREATE TABLE rows(id INTEGER PRIMARY KEY, prompt TEXT, response TEXT, status TEXT, split TEXT, turns INTEGER)"
    )
    db.execute("CREATE TABLE calls AS SELECT 0 AS n")
    found = ((n, asked, answer, "accepted", "train", 2) for n, (asked, answer) in enumerate(texts(rows)))
    db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", found)
    db.commit()
    db.close()


def _quiet(path: Path) -> None:
    """Waits until the page has nothing more to say: it tells an edit twice."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    before, since = -1, time.perf_counter()
    while time.perf_counter() < since + 4:
        calls = db.execute("SELECT n FROM calls").fetchone()[0]
        if calls != before:
            before, since = calls, time.perf_counter()
        time.sleep(0.05)
    db.close()
