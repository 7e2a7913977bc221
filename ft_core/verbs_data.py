"""The front door's verbs on a project's rows."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from . import recipe
from .errors import FTError
from .out import Out
from .recipe import Recipe
from .workspace import Project, Workspace

Arguments = argparse.Namespace


def check(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Looks at all rows, with progress on stderr. Result: `ready`, `flags` (rows by name), `diversity`."""
    from .data import audit, audit_job, quality
    from .train import models

    project = workspace.project(args.project)
    with store_of(project) as store:
        wanted = recipe_of(project)
        there = wanted.model.base != recipe.BUILTIN or models.is_ready(workspace)
        renderer = models.renderer(wanted, workspace, project.path) if there else None
        limit = wanted.train.max_length
        with contextlib.closing(audit.steps(store, renderer, limit)) as steps:
            for step, eta_s in audit_job.paced(steps):
                left = f", about {eta_s:.0f} s left" if eta_s and step.done < step.total else ""
                print(f"{step.what}: {step.done:,} of {step.total:,}{left}", file=sys.stderr, flush=True)
        found = quality.check(store, renderer, limit, look=0)
    for finding in found.findings:
        out.say(f"{finding.kind}: {finding.text} {finding.hint}")
    out.result(audit_job.result(found), "ready to train" if found.ready else "not ready to train")


def split(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .data import split

    project = workspace.project(args.project)
    wanted = with_knobs(recipe_of(project).data, args)
    with store_of(project) as store:
        train, heldout = split.assign(store, wanted.heldout, wanted.seed, group=wanted.group)
    out.result({"train": train, "heldout": heldout}, f"{train} rows to train, {heldout} held out")


def search(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: `total`; `rows`: the first of them, `{id, status, split, origin, messages}`."""
    from .data.columns import Query

    with store_of(workspace.project(args.project)) as store:
        store.index(seconds=60)
        found = store.page(Query(args.view, args.text, sort=args.sort, descending=args.descending), 0, args.limit)
    rows = [{"id": r.id, "status": r.status, "split": r.split} | r.conversation.to_dict() for r in found.rows]
    lines = [f"{r['id']:>8}  {' / '.join(m['content'] for m in r['messages'])[:200]!r}" for r in rows]
    out.result({"total": found.total, "rows": rows}, "\n".join([*lines, f"{found.total:,} found"]))


def replace_text(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: `rows` that change. With --preview also `places` and `changes`, `[{id, before, after}]` as messages."""
    from .data import bulk
    from .data.columns import Query

    find = bulk.Find(args.find, args.put, args.regex, not args.ignore_case, args.role)
    query = Query(args.view, args.search)
    with store_of(workspace.project(args.project)) as store:
        if not args.preview:
            rows = bulk.replace_text(store, query, find, who="command line")
            out.result({"rows": rows}, f"{rows} rows changed")
            return
        seen = bulk.preview(store, query, find)
    changes = [
        {"id": r.id, "before": r.before.to_dict()["messages"], "after": r.after.to_dict()["messages"]}
        for r in seen.replacements
    ]
    for r in seen.replacements:
        for before, after in zip(r.before.messages, r.after.messages):
            if before != after:
                out.say(f"{r.id} {before.role}\n- {before.content}\n+ {after.content}")
    result = {"rows": seen.rows, "places": seen.places, "changes": changes}
    out.result(result, f"{seen.places} places in {seen.rows} rows would change")


def versions(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: `versions: [{name, who, at, current}]`; --name: `named`; --restore: `restored`, `changes`; --diff:
    `added`, `removed`, `changed`, `system: [before, after]`, `changes: [{id, kind, before, after}]`."""
    from .data import versions

    with store_of(workspace.project(args.project)) as store:
        if args.name is not None:
            named = versions.name(store, args.name, "command line")
            out.result({"named": named.name}, f"version {named.name}")
        elif args.restore is not None:
            changes = versions.restore(store, args.restore, "command line")
            out.result({"restored": args.restore, "changes": changes}, f"back to version {args.restore}")
        elif args.diff is not None:
            before, after = [*args.diff, ""][:2]
            result = asdict(versions.diff(store, before, after, limit=args.limit))
            counts = ", ".join(f"{result[kind]:,} {kind}" for kind in ("added", "removed", "changed"))
            lines = [f"{change['kind']}: row {change['id']}" for change in result["changes"]]
            out.result(result, "\n".join([*lines, counts]))
        else:
            found = [asdict(version) for version in versions.versions(store)]
            out.result({"versions": found}, "\n".join(v["name"] for v in found) or "no versions yet")


def undo(args: Arguments, workspace: Workspace, out: Out) -> None:
    with store_of(workspace.project(args.project)) as store:
        undone = store.undo()
    out.result({"undone": undone}, f"undone: {undone}" if undone else "nothing to undo")


def redo(args: Arguments, workspace: Workspace, out: Out) -> None:
    with store_of(workspace.project(args.project)) as store:
        redone = store.redo()
    out.result({"redone": redone}, f"done again: {redone}" if redone else "nothing to redo")


def stats(args: Arguments, workspace: Workspace, out: Out) -> None:
    with store_of(workspace.project(args.project)) as store:
        out.result(asdict(store.stats()))


def store_of(project: Project):
    from .data.store import Store

    return Store(project.data)


@contextlib.contextmanager
def to_fill(workspace: Workspace, name: str) -> Iterator[tuple[Project, Any]]:
    """The project and its store, made when it is unknown; a refusal leaves no empty project behind."""
    existed = workspace.folder.joinpath(name).is_dir()
    project = workspace.project(name, create=True)
    with store_of(project) as store:
        try:
            yield project, store
            return
        except FTError as error:
            refusal = error
            empty = not (existed or store.can_undo or project.jobs())  # another process may have filled it meanwhile
    if empty:
        project.remove()
    raise refusal


def recipe_of(project: Project) -> Recipe:
    """The project's recipe as the page left it, else the Balanced preset."""
    return recipe.load(project.recipe) if project.recipe.exists() else recipe.preset("Balanced")


def with_knobs(section: Any, args: Arguments) -> Any:
    given = {k: v for k, v in vars(args).items() if v is not None and hasattr(section, k)}
    return recipe.checked(dataclasses.replace(section, **given))
