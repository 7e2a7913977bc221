"""The front door's verbs that take rows from files."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .errors import FTError
from .out import Out
from .verbs_data import to_fill
from .workspace import Workspace

Arguments = argparse.Namespace


_SAY_S = 2.0
"""From one word of progress to the next."""


def take(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: `added`; `skipped`: [{file, row, reason}], the first thousand; `skipped_rows`; `ended_at`."""
    from .data import formats

    mapping, wanted = _mapping(args.map), [_source(text, args) for text in args.files]
    with to_fill(workspace, args.project) as (_, store):
        done = formats.import_files(
            store, wanted, mapping or None, args.partial, "command line", args.shape, _progress(out)
        )
    for skip in done.skipped:
        out.say(f"skipped: {skip.file}{f', {skip.row}' if skip.row else ''}: {skip.reason}")
    result = {
        "added": done.added,
        "skipped": [asdict(s) for s in done.skipped],
        "skipped_rows": done.skipped_rows,
        "ended_at": done.ended_at,
    }
    ended = f"; ended early: {done.ended_at}" if done.ended_at else ""
    out.result(result, f"{done.added} rows added, {done.skipped_rows} skipped{ended}")


def look(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: as data/look.py says."""
    from .data import look

    if args.source == "-":
        out.result(look.asked(sys.stdin.read()))
        return
    found = look.look(_source(args.source, args), _mapping(args.map) or None, args.shape)
    if found["problem"]:
        raise FTError(**found["problem"])
    lines = [f"{field['name']:>14} = {field['column'] or '(none)'}" for field in found["fields"]]
    if hub := found["hub"]:
        configs = "; ".join(f"{name}: {', '.join(splits) or '...'}" for name, splits in hub["configs"].items())
        lines.append(f"licence: {hub['licence'] or 'not said'}; configurations and splits: {configs}")
    for row in found["preview"]:
        lines += ["", *(f"{m['role']}: {m['content']}"[:200] for m in row["messages"])]
    out.result(found, "\n".join([f"{found['table']}: {found['shape']}", *lines]))


def _source(text: str, args: Arguments) -> Any:
    """What a word names; the options of a dataset of the Hub go with it."""
    from .data import sources
    from .data.reading import HubRows

    found = sources.parsed(text)
    if isinstance(found, HubRows):
        return HubRows(found.repo, args.config, args.split, args.rows, args.random, args.seed)
    if args.config or args.split or args.rows or args.random:
        raise FTError(
            f"--config, --split, --rows and --random are for datasets of the Hub, not for {text}",
            "Name one as hub:owner/name.",
        )
    return found


def _progress(out: Out) -> Callable[[int, int, int], None]:
    said = time.monotonic()

    def tell(done: int, total: int, rows: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _SAY_S:
            said = time.monotonic()
            share = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB, " if total else ""
            print(f"{share}{rows:,} rows read", file=sys.stderr, flush=True)

    return tell


def _mapping(words: list[str]) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for text in words:
        field, sign, column = text.partition("=")
        if not (field and sign and column):
            raise FTError(f"--map {text} is not FIELD=COLUMN", "For example: --map prompt=Question")
        if field in mapping:
            raise FTError(f"--map names two columns for {field}", "A field is one column of the file.")
        mapping[field] = column
    return mapping
