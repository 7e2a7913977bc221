"""The front door's verbs that give rows away: to a file, to a folder of `datasets`, as tokens, to the Hub."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from .out import Out
from .verbs import follow
from .verbs_data import recipe_of, store_of
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


def prepare(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: `rows`, `written: {train, test}`, `cut` and `lost` (tokens that would have been learnt),
    `nothing_learnt`, `refused: [{row, reason}]`, `tokens`, `learnt`, `base`, `max_length`, `path`."""
    from .data import prepare
    from .recipe import BUILTIN, checked
    from .train import base, models

    project = workspace.project(args.project)
    wanted, relative_to = recipe_of(project), project.path
    if args.base:
        wanted, relative_to = replace(wanted, model=replace(wanted.model, base=args.base, revision="")), Path.cwd()
    if args.max_length is not None:
        wanted = replace(wanted, train=checked(replace(wanted.train, max_length=args.max_length)))
    if wanted.model.base == BUILTIN:
        base.resolve(BUILTIN, "", workspace, relative_to, lambda share, what: out.say(f"{share:.0%} {what}"))
    renderer = models.renderer(wanted, workspace, relative_to)
    with store_of(project) as store:
        done = prepare.prepare(store, renderer, Path(args.folder), wanted.train.max_length, args.pack)
    for row in done.refused:
        out.say(f"refused: row {row['row']}: {row['reason']}")
    about = {"base": base.public_name(wanted.model.base, relative_to), "max_length": wanted.train.max_length}
    text = (
        f"{done.rows} rows for {about['base']} written to {args.folder}\n"
        f"{done.tokens:,} tokens, {done.learnt:,} of them learnt\n"
        f"{done.cut} cut at {wanted.train.max_length:,} tokens ({done.lost:,} that would have been learnt), "
        f"{done.nothing_learnt} teach nothing, {len(done.refused)} refused by the template"
    )
    out.result(done.to_dict() | about | {"path": args.folder}, text)


def push(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: `job`, `state`, `repo` (its address), `private`, `rows`, `train`, `test`, `left_out`, `fingerprint`."""
    from .data import publish

    project = workspace.project(args.project)
    options = {"public": args.public, "shape": args.shape, "licence": args.licence}
    token = os.environ.get("HF_TOKEN", "")
    job = publish.start(project, recipe_of(project), args.repo, token=token, **options)
    result = follow(job, out)
    out.result(result, f"{result['rows']} rows pushed to {result['repo']}")
