"""A million rows in the grid against ten thousand in gr.Dataframe: `python -m benchmarks.grid`.

It fills a store, starts the app on it and looks at it with headless Chromium: rows count as there when the table is
full of them, each with the text of its own place, and the browser had a frame to paint them. An edit lasts from Enter
to the changed row in SQLite, seen by another program. The peer keeps its edits in SQLite too. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from ft_core.data.store import Store
from ft_core.train.builtin import ensure_builtin
from ft_core.workspace import Workspace

from . import grid_frame, grid_page, grid_rows

_BARS = (
    ("first rows after a click on Data", "first_rows_s", 1.0, "s"),
    ("a jump to any place", "jump_s", 0.150, "s"),
    ("an edit, on disk", "edit_s", 0.100, "s"),
    ("heap of the page", "heap_mb", 30, "MB"),
    ("memory of the web process", "rss_mb", 350, "MB"),
)
_TOLD = (
    ("heap with an empty project", "heap_empty_mb", "MB"),
    ("heap before the Data tab is opened", "heap_without_data_tab_mb", "MB"),
    ("opening the page of the project", "page_load_s", "s"),
    ("the slowest jump", "jump_worst_s", "s"),
    ("undo, on disk", "undo_s", "s"),
    ("sort, the first time", "cold_sort_s", "s"),
    ("sort", "sort_s", "s"),
    ("filter", "view_s", "s"),
    ("search, with 0.2 s of waiting for more letters", "search_s", "s"),
    ("web process after its start", "rss_start_mb", "MB"),
    ("web process with an empty project", "rss_empty_mb", "MB"),
    ("web process at its highest", "rss_peak_mb", "MB"),
    ("adding the rows", "add_s", "s"),
    ("memory that adding them took, at its highest", "add_peak_mb", "MB"),
    ("undo of the import", "undo_import_s", "s"),
    ("redo of the import", "redo_import_s", "s"),
    ("the search index", "index_s", "s"),
    ("search before there is one", "search_without_index_s", "s"),
    ("the file", "file_mb", "MB"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", help="FT_HOME, for the built-in model")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--frame-rows", type=int, default=10_000)
    parser.add_argument("--tries", type=int, default=5)
    arguments = parser.parse_args()
    builtin = ensure_builtin(Workspace.at(arguments.home), lambda share, what: None)
    with tempfile.TemporaryDirectory() as folder, grid_page.browser() as browser:
        workspace = Workspace.at(Path(folder) / "home")
        workspace.builtin_model.symlink_to(builtin, target_is_directory=True)
        full, empty = (workspace.project(name, create=True) for name in ("Full", "Empty"))
        Store(empty.data).close()
        found: dict[str, float] = grid_rows.make(full.data, arguments.rows)
        with grid_page.app(workspace.home) as (url, process):
            found["rss_start_mb"] = process.memory_info().rss / 1e6
            found |= grid_page.empty(browser, url, empty.name)
            found["rss_empty_mb"] = process.memory_info().rss / 1e6
            found |= grid_page.measure(browser, url, full.name, full.data, arguments.rows, arguments.tries)
            found["rss_mb"] = process.memory_info().rss / 1e6
            found["rss_peak_mb"] = grid_rows.peak_mb(process.pid)
        _table(arguments.rows, found)
        frame = grid_frame.measure(browser, Path(folder), arguments.frame_rows, arguments.tries)
    ratio = frame["edit_s"] / found["edit_s"]
    _peer(frame, ratio)
    figures = {name: round(value, 4) for name, value in found.items()}
    figures["dataframe"] = {name: round(value, 4) for name, value in frame.items()}
    print(json.dumps({"rows": arguments.rows, "cores": os.cpu_count(), **figures, "edit_ratio": round(ratio, 1)}))


def _table(rows: int, found: dict[str, float]) -> None:
    print(f"{f'{rows:,} rows':50}{'measured':>12}{'bar':>12}")
    for title, name, bar, unit in _BARS:
        missed = "" if found[name] < bar else "   missed"
        print(f"{title:50}{_shown(found[name], unit):>12}{_shown(bar, unit):>12}{missed}")
    for title, name, unit in _TOLD:
        print(f"{title:50}{_shown(found[name], unit):>12}", flush=True)


def _peer(frame: dict[str, float], ratio: float) -> None:
    print(f"gr.Dataframe, {frame['rows']:,} rows")
    print(f"{'an edit, on disk':50}{_shown(frame['edit_s'], 's'):>12}")
    print(f"{'how many times as long as ours':50}{ratio:>12.0f}{20:>12}{'' if ratio >= 20 else '   missed'}")
    print(f"{'opening its page':50}{_shown(frame['load_s'], 's'):>12}")
    print(f"{'heap of its page':50}{_shown(frame['heap_mb'], 'MB'):>12}")


def _shown(value: float, unit: str) -> str:
    return f"{value:.0f} MB" if unit == "MB" else f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


if __name__ == "__main__":
    main()
