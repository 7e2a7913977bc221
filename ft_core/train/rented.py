"""A training on a machine of Hugging Face that is rented by the minute (Jobs): sent there, followed, brought home.

It is a job of the project like any other, and its process is the one here that follows it; far.py runs there. What
travels lies in a private repository of the account, which is made for this and goes once all is home again. The token
travels as a secret of the job. The process here may end: the machine there goes on, and a resume follows it again.
"""

from __future__ import annotations

import contextlib
import json
import math
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from huggingface_hub import HfApi, JobInfo, JobStage, errors
from huggingface_hub.utils import get_session, httpx

from .. import events, recipe
from ..data import repository
from ..data.freeze import frozen
from ..errors import FTError
from ..events import Event, Failed, Finished, Note, Progress, Stopped
from ..recipe import BUILTIN, Recipe
from ..workspace import Job, write_whole
from . import base, checkpoints, compute, far, methods, mirror, models, parcel, report, trackers
from .plan import Plan

IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"
CLIENT = "huggingface-hub==1.33.0"
"""What fetches the rest, which brings its own pins."""
BEGIN = """
import os, shutil, subprocess, sys
from huggingface_hub import snapshot_download
repo, *wanted = sys.argv[1:]
home = snapshot_download(repo, repo_type="dataset", local_dir="ft-flow")
source = os.path.abspath("source")
shutil.unpack_archive(os.path.join(home, "source.zip"), source)
uv = ["uv", "run", "--no-project", "--with-requirements", os.path.join(source, "requirements.txt")]
for package in wanted:
    uv += ["--with", package]
environment = {**os.environ, "PYTHONPATH": source}
sys.exit(subprocess.call([*uv, "python", "-m", "ft_core.train.far", repo, home], env=environment))
"""
"""What the rented machine runs first."""
_OVER = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
_LOOK_S = 10.0
"""Between two questions how the machine is."""
_STOPS_WITHIN_S = 180.0
"""After so long a machine that was asked to stop, and save, is cancelled."""
_PAUSES_S = (1.0, 5.0, 20.0, 60.0)
"""Before what a network lost is sent or fetched again."""
_KEPT = "nothing is lost: resume goes on where it was"
T = TypeVar("T")


@dataclass(frozen=True)
class Rent:
    """rented.json in the job's folder: what of the job is at Hugging Face now."""

    namespace: str
    repo: str
    id: str = ""
    """Of the Job there; '' until it is known."""

    @classmethod
    def of(cls, job: Job) -> Rent | None:
        return cls(**json.loads(job.rented.read_text(encoding="utf-8"))) if job.rented.exists() else None

    def keep(self, job: Job) -> None:
        write_whole(job.rented, json.dumps(asdict(self)))

    @property
    def name(self) -> str:
        """The label by which a Job is found whose id nobody heard."""
        return self.repo.rpartition("/")[2]


def check(wanted: Recipe, token: str) -> None:
    """Raises FTError when a training cannot be rented so: an unknown machine, one that cannot, no token."""
    compute.require(wanted)
    if not token:
        raise FTError(
            "a machine of Hugging Face is rented on your account, and that wants a token",
            "Set HF_TOKEN to one that may write repositories and start jobs (huggingface.co/settings/tokens).",
        )
    repository.check("", token)


def run(job: Job, secrets: dict[str, str], endpoint: str | None = None) -> Iterator[Event]:
    """The whole of it, for the process here. Ends with Finished, or with Stopped once `job.stop` exists.

    Raises FTError when it cannot be rented, when it failed there, and when the Hub cannot be reached for good.
    """
    wanted = recipe.load(job.recipe)
    token = secrets.get("HF_TOKEN", "")
    check(wanted, token)
    renting = _Renting(job, wanted, HfApi(endpoint=endpoint, token=token), token)
    with repository.refusals(renting.api.endpoint, _KEPT):
        get_session().timeout = far.ANSWERS_WITHIN_S  # of this process: an answer that was lost is asked for again
        yield from trackers.told(job, renting.run())


class _Renting:
    def __init__(self, job: Job, wanted: Recipe, api: HfApi, token: str):
        self.job, self.wanted, self.api, self.token = job, wanted, api, token
        self.hardware = compute.hardware(wanted.compute)
        self.rent = Rent.of(job)
        self.known = set(_lines(job.events))
        last = checkpoints.last_whole(job)
        self.step = checkpoints.step_of(last) if last else 0
        self.steps = Plan.of(frozen(job.dataset).train, wanted.train).steps
        self.left: float | None = None

    def run(self) -> Iterator[Event]:
        if self.rent and not self.rent.id:
            self._find()
        if not self.rent or not self.rent.id:
            yield from self._send()
        if not self.rent:  # stopped before anything was rented
            yield Stopped(self.step, {})
            return
        yield from self._follow()
        yield from self._bring_home()

    # --- there

    def _send(self) -> Iterator[Event]:
        """Sends what the training needs and rents the machine, unless somebody stops it first."""
        yield self._progress("sending the rows to Hugging Face")
        if self.rent is None:
            owner = self._again(self.api.whoami)["name"]
            self.rent = Rent(owner, f"{owner}/ft-flow-{self.job.id}-{token_hex(3)}")
            self.rent.keep(self.job)
        with contextlib.ExitStack() as unless_rented:
            unless_rented.callback(self._forget)
            self._again(lambda: self.api.create_repo(self.rent.repo, repo_type=far.KIND, private=True, exist_ok=True))
            with tempfile.TemporaryDirectory(dir=self.job.path, prefix=".sent-") as scratch:
                parcel.pack(self.job, self.wanted, Path(scratch))
                self._again(
                    lambda: self.api.upload_folder(
                        repo_id=self.rent.repo, repo_type=far.KIND, folder_path=scratch, commit_message="to train"
                    )
                )
            if self.job.stop.exists():
                return
            there = self._start()
            unless_rented.pop_all()
        self.rent = replace(self.rent, id=there.id)
        self.rent.keep(self.job)
        price = f"${self.hardware.job_usd:.2f} an hour, ${compute.most_usd(self.wanted.compute):.2f} at most"
        yield Note(f"Rented: {self.hardware.title} at Hugging Face, {price}. Its page is {there.url}.")

    def _start(self) -> JobInfo:
        needs_more = self.wanted.train.method in methods.QUANTIZED
        more = parcel.pins("space_config/requirements-gpu.txt", "bitsandbytes") if needs_more else []
        begin = ["uv", "run", "--no-project", "--with", CLIENT, "python", "-c", BEGIN, self.rent.repo, *more]
        try:
            return self.api.run_job(
                image=IMAGE,
                command=begin,
                env={"HF_HUB_DISABLE_TELEMETRY": "1"},
                secrets={"HF_TOKEN": self.token},
                flavor=self.hardware.name,
                timeout=round(3600 * self.wanted.compute.hours),
                name=self.rent.name,
                namespace=self.rent.namespace,
            )
        except errors.HfHubHTTPError as error:
            raise _refused(error, self.api.endpoint) or error from None

    def _forget(self) -> None:
        """Takes away what was sent, as nothing runs on it."""
        with contextlib.suppress(errors.HfHubHTTPError, httpx.HTTPError):
            self.api.delete_repo(self.rent.repo, repo_type=far.KIND, missing_ok=True)
        self.job.rented.unlink(missing_ok=True)
        self.rent = None

    def _find(self) -> None:
        """The process that rented the machine ended before it heard which one it got."""
        jobs = self._again(
            lambda: list(self.api.list_jobs(labels={"name": self.rent.name}, namespace=self.rent.namespace))
        )
        if jobs:
            self.rent = replace(self.rent, id=jobs[0].id)
            self.rent.keep(self.job)

    # --- meanwhile

    def _follow(self) -> Iterator[Event]:
        """What is said there, until the machine is given back."""
        said: queue.SimpleQueue[str] = queue.SimpleQueue()
        over = threading.Event()
        listening = threading.Thread(target=self._listen, args=(said, over), daemon=True)
        listening.start()
        try:
            yield from self._heard(said)
        finally:
            over.set()

    def _heard(self, said: queue.SimpleQueue[str]) -> Iterator[Event]:
        look_at = asked_at = 0.0
        stage, lost = "", False
        trains = False
        while True:
            try:
                event = self._event(said.get(timeout=0.5))
            except queue.Empty:
                event = None
            if event:
                trains = True
                yield event
                continue
            if self.job.stop.exists() and not asked_at and stage not in _OVER:
                asked_at, look_at = time.monotonic(), 0.0
                yield self._progress("asking the rented machine to stop, and to keep what it has")
                if not trains:  # there is nothing to keep yet
                    self._again(self._cancel)
                else:
                    self._again(lambda: self.api.upload_file(path_or_fileobj=b"stop", path_in_repo=far.STOP,
                                                             repo_id=self.rent.repo, repo_type=far.KIND))  # fmt: skip
            if asked_at and trains and time.monotonic() - asked_at > _STOPS_WITHIN_S:
                asked_at, trains = time.monotonic(), False
                self._again(self._cancel)
            if time.monotonic() < look_at:
                continue
            look_at = time.monotonic() + (1.0 if asked_at else _LOOK_S)
            try:
                now = str(self._inspect().status.stage)
            except (httpx.HTTPError, ConnectionError, errors.HfHubHTTPError) as error:
                if not _may_pass(error):
                    raise
                if not lost:
                    lost = True
                    yield Note("Hugging Face cannot be reached at the moment; the training goes on there.")
                continue
            lost = False
            if now in _OVER:
                return
            if now != stage:
                stage = now
                if not trains:
                    yield self._progress(
                        "the rented machine installs what it needs" if stage == "RUNNING"
                        else f"waiting for a {self.hardware.title} at Hugging Face"
                    )  # fmt: skip

    def _listen(self, said: queue.SimpleQueue[str], over: threading.Event) -> None:
        """The log as it comes. It begins anew whenever the way was lost, and what was heard is not heard twice."""
        while not over.is_set():
            with contextlib.suppress(httpx.HTTPError, errors.HfHubHTTPError, ConnectionError, ValueError):
                for line in self.api.fetch_job_logs(job_id=self.rent.id, namespace=self.rent.namespace, follow=True):
                    said.put(line)
                    if over.is_set():
                        return
            over.wait(3.0)

    def _event(self, line: str) -> Event | None:
        """What a line of the log says that nobody has heard yet; the last words are those in the repository."""
        if not line.startswith(far.MARK):
            return None
        try:
            event = events.from_dict(json.loads(line.removeprefix(far.MARK)))
        except (ValueError, FTError):  # cut short on its way; the repository has it whole
            return None
        if isinstance(event, Finished | Stopped | Failed | events.Queued) or not self._is_new(event):
            return None
        if isinstance(event, Progress):
            self.step = event.step
        return event

    def _is_new(self, event: Event) -> bool:
        text = json.dumps(events.to_dict(event), ensure_ascii=False)
        new = text not in self.known
        self.known.add(text)
        return new

    def _inspect(self) -> JobInfo:
        return self.api.inspect_job(job_id=self.rent.id, namespace=self.rent.namespace)

    def _cancel(self) -> None:
        self.api.cancel_job(job_id=self.rent.id, namespace=self.rent.namespace)

    # --- home again

    def _bring_home(self) -> Iterator[Event]:
        """What came of it, each file compared with the Hub's; then the repository goes. Ends as it ended there."""
        ended = self._again(self._inspect)
        yield self._progress("bringing home what was learned")
        heard_before = set(_lines(self.job.events))
        with tempfile.TemporaryDirectory(dir=self.job.path, prefix=".home-") as scratch:
            there = self._again(lambda: self._fetched(Path(scratch)))
            missed, last = self._said_there(there / "events.jsonl", heard_before)
            yield from missed
            parcel.take(there, self.job, self.wanted)
        yield from self._forgotten()
        spent = self._spent(ended)
        if spent["rented_minutes"]:
            yield Note(
                f"{self.hardware.title} ran for {spent['rented_minutes']:.0f} minutes, about "
                f"${spent['rented_usd']:.2f} in all."
            )
        yield from self._last_word(ended, last, spent)

    def _fetched(self, scratch: Path) -> Path:
        """The job's folder as the Hub has it. Raises FTError when files did not arrive whole."""
        inside = far.folder_of(self.job.id)
        self.api.snapshot_download(
            self.rent.repo,
            repo_type=far.KIND,
            local_dir=scratch,
            allow_patterns=[f"{inside}/*"],
            ignore_patterns=["*/dataset.parquet"],
        )
        shutil.rmtree(scratch / ".cache", ignore_errors=True)  # the client's own
        same, files = repository.arrived(self.api, self.rent.repo, far.KIND, scratch)
        if same < files:
            raise ConnectionError(f"{files - same} of {files} files did not arrive whole")
        return scratch / inside

    def _said_there(self, path: Path, before: set[str]) -> tuple[list[Event], Event | None]:
        """Events that the log did not bring, and the last word of the training; None when it had none."""
        found = [e for e in events.read(path)[0] if json.dumps(events.to_dict(e), ensure_ascii=False) not in before]
        ends = [e for e in found if isinstance(e, Finished | Stopped | Failed)]
        missed = [e for e in found if not isinstance(e, Finished | Stopped | Failed | events.Queued)]
        for event in missed:
            self._is_new(event)
        return missed, ends[-1] if ends else None

    def _forgotten(self) -> Iterator[Note]:
        try:
            self._again(lambda: self.api.delete_repo(self.rent.repo, repo_type=far.KIND, missing_ok=True))
        except (errors.HfHubHTTPError, httpx.HTTPError, ConnectionError):
            yield Note(f"{self.rent.repo} could not be removed; delete it on {self.api.endpoint}.", "warning")
        self.job.rented.unlink(missing_ok=True)

    def _spent(self, ended: JobInfo) -> dict[str, float]:
        """What the rents of this job have cost so far, by the minutes that the machines ran."""
        seconds = ended.durations.running_secs if ended.durations else None
        if seconds is None and ended.started_at and ended.finished_at:
            seconds = (ended.finished_at - ended.started_at).total_seconds()
        minutes = math.ceil((seconds or 0) / 60)
        path = self.job.path / "report" / "rents.json"
        path.parent.mkdir(exist_ok=True)
        rents = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        rents.append({"id": ended.id, "hardware": self.hardware.name, "minutes": minutes,
                      "usd": minutes * self.hardware.job_usd / 60})  # fmt: skip
        write_whole(path, json.dumps(rents))
        return {"rented_minutes": sum(r["minutes"] for r in rents), "rented_usd": sum(r["usd"] for r in rents)}

    def _last_word(self, ended: JobInfo, last: Event | None, spent: dict[str, Any]) -> Iterator[Event]:
        if isinstance(last, Failed):
            raise FTError(last.message, last.hint)
        if last is None:
            if not self.job.stop.exists():
                raise _broken(ended, self.wanted, self.job)
            result = self._adopted()
            last = Stopped(self.step, result)
        home = {"job": self.job.id, "adapter": str(self.job.adapter)} if last.result.get("adapter") else {}
        result = {**last.result, **home, "base": self._base(), "rented": self.hardware.name, **spent}
        last = replace(last, result=result, at=time.time())
        if "steps" in result:
            report.write(self.job, last)
        yield from mirror.copy_result(self.job, self.wanted.train.mirror)
        yield last

    def _base(self) -> str:
        """The folder of the base where it is on this machine, else what a recipe calls it."""
        wanted, workspace = self.wanted.model, self.job.project.workspace
        if wanted.base == BUILTIN:
            return str(workspace.builtin_model) if workspace.builtin_model.exists() else BUILTIN
        folder = self.job.path / wanted.base
        return str(folder.resolve()) if folder.is_dir() else wanted.base

    def _adopted(self) -> dict[str, Any]:
        """The result of a machine that was cancelled before it could say one: what its last checkpoint holds."""
        last = checkpoints.last_whole(self.job)
        if last is None:
            return {}
        from . import weights  # torch

        name = base.public_name(self.wanted.model.base, self.job.path)
        model, workspace = self.wanted.model, self.job.project.workspace
        folder = models.tokenizer_folder(model.base, model.revision, workspace, self.job.path)
        weights.adopt(last, folder, name, self.wanted.train, self.job.adapter)
        self.step = checkpoints.step_of(last)
        return {
            "state": "stopped",
            "steps": self.step,
            "adapter": str(self.job.adapter),
            "heldout_before": None,
            "heldout_after": None,
            "best_step": None,
            "kept_step": self.step,
        }

    # --- small things

    def _progress(self, what: str) -> Progress:
        return Progress(self.step, self.steps, None, what)

    def _again(self, ask: Callable[[], T]) -> T:
        """`ask()`, as often as a network takes that comes and goes."""
        for pause in _PAUSES_S:
            try:
                return ask()
            except (httpx.HTTPError, ConnectionError, errors.HfHubHTTPError) as error:
                if not _may_pass(error):
                    raise
                print(f"asked again in {pause:.0f} s: {type(error).__name__}", flush=True)
                time.sleep(pause)
        return ask()


def _lines(path: Path) -> list[str]:
    return [json.dumps(events.to_dict(event), ensure_ascii=False) for event in events.read(path)[0]]


def _may_pass(error: Exception) -> bool:
    """Whether it may be otherwise in a while: a network, a server of the Hub, too many questions."""
    if not isinstance(error, errors.HfHubHTTPError):
        return True
    return error.response is None or error.response.status_code >= 500 or error.response.status_code == 429


def _refused(error: errors.HfHubHTTPError, endpoint: str) -> FTError | None:
    """Why no machine is rented out, where the Hub says so of its jobs; None for what it says of anything."""
    said = error.server_message or ""
    match error.response.status_code if error.response is not None else 0:
        case 402:
            return FTError(
                f"Hugging Face rents no machine to this account without means to pay: {said}",
                f"Add a payment method or credit on {endpoint}/settings/billing.",
            )
        case 403:
            return FTError(
                f"the token may not rent a machine: {said}",
                f"Make one that may start jobs and write repositories, on {endpoint}/settings/tokens.",
            )
    return None


def _broken(ended: JobInfo, wanted: Recipe, job: Job) -> FTError:
    """A machine that was given back without a last word."""
    last = checkpoints.last_whole(job)
    goes_on = f"Resume goes on {checkpoints.whence(last)}, on another machine."
    said = ended.status.message or ""
    hours = wanted.compute.hours
    ran = ended.durations.running_secs if ended.durations else None
    if "timeout" in said.lower() or (ran or 0) >= 3600 * hours - 60:
        return FTError(
            f"the {hours:g} hours of the rented machine were over before the training was",
            f"Raise hours in the recipe. {goes_on}",
        )
    if ended.status.stage == JobStage.CANCELED:
        return FTError("the rented machine was cancelled at Hugging Face", goes_on)
    return FTError(
        f"the rented machine ended without a word{f': {said}' if said else ''}",
        f"What it said is on {ended.url}. {goes_on}",
    )
