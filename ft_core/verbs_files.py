"""The front door's verbs that take rows from files."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from .errors import FTError
from .out import Out
from .verbs_data import to_fill
from .workspace import Workspace

Arguments = argparse.Namespace


def take(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .data import formats

    mapping = _mapping(args.map)
    with to_fill(workspace, args.project) as (_, store):
        done = formats.import_files(store, [Path(f) for f in args.files], mapping or None, args.partial)
    for skip in done.skipped:
        out.say(f"skipped: {skip.file}, {skip.row}: {skip.reason}")
    result = {"added": done.added, "skipped": [asdict(s) for s in done.skipped], "ended_at": done.ended_at}
    out.result(result, f"{done.added} rows added, {len(done.skipped)} skipped")


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
