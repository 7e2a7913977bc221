"""The front door's verbs that give rows away: to a file, to a folder of `datasets`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .out import Out
from .verbs_data import store_of
from .workspace import Workspace

Arguments = argparse.Namespace


def give(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: `rows`, `left_out` (by the shape preference: rows without a worse answer), `path`."""
    from .data import folder, writing

    path = Path(args.file)
    with store_of(workspace.project(args.project)) as store:
        rows = store.conversations(args.split)
        if args.file.endswith("/") or not path.suffix:
            done = folder.write(rows, path, args.shape)
        else:
            done = writing.write((conversation for _, conversation, _ in rows), path, args.shape)
    left_out = f", {done.left_out} without a worse answer left out" if done.left_out else ""
    result = {"rows": done.rows, "left_out": done.left_out, "path": args.file}
    out.result(result, f"{done.rows} rows written to {args.file}{left_out}")
