"""Renting a machine of Hugging Face for a training: what travels there is sent, and the machine asked for (Jobs).

What travels lies in a private repository of the account, which is made for this and goes once all is home again. The
token travels as a secret of the Job.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

from huggingface_hub import HfApi, JobInfo, errors
from huggingface_hub.utils import httpx

from ..data import repository
from ..data.freeze import frozen
from ..errors import FTError
from ..events import Event, Note, Progress
from ..recipe import Recipe
from ..workspace import Job, write_whole
from . import compute, far, methods, parcel
from .machines import Hardware
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
_PAUSES_S = (1.0, 5.0, 20.0, 60.0)
"""Before what a network lost is sent or fetched again."""
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


@dataclass(frozen=True)
class Renting:
    """A job that trains on a rented machine, and the account that it is rented on."""

    job: Job
    wanted: Recipe
    api: HfApi
    """Bears the token."""
    steps: int
    """Updates of the weights in all."""

    @classmethod
    def of(cls, job: Job, wanted: Recipe, api: HfApi) -> Renting:
        return cls(job, wanted, api, Plan.of(frozen(job.dataset).train, wanted.train).steps)

    @property
    def hardware(self) -> Hardware:
        return compute.hardware(self.wanted.compute)

    def progress(self, step: int, what: str) -> Progress:
        return Progress(step, self.steps, None, what)


def found(renting: Renting) -> Rent | None:
    """The machine that an earlier process rented for this job, and did not bring home; None where there is none.

    Where that process ended before it heard which machine it got, it is found by its name.
    """
    rent = Rent.of(renting.job)
    if rent is None or rent.id:
        return rent
    there = again(lambda: list(renting.api.list_jobs(labels={"name": rent.name}, namespace=rent.namespace)))
    return _kept(renting, rent, there[0].id) if there else None


def send(renting: Renting, step: int) -> Generator[Event, None, Rent | None]:
    """Sends what the training needs and rents the machine; returns None when somebody stopped it first.

    `step` is the one from which the training goes on. Raises FTError when the Hub rents none out.
    """
    yield renting.progress(step, "sending the rows to Hugging Face")
    job, api = renting.job, renting.api
    rent = Rent.of(job)
    if rent is None:
        owner = again(api.whoami)["name"]
        rent = Rent(owner, f"{owner}/ft-flow-{job.id}-{token_hex(3)}")
        rent.keep(job)
    with contextlib.ExitStack() as unless_rented:
        unless_rented.callback(_forget, renting, rent)
        again(lambda: api.create_repo(rent.repo, repo_type=far.KIND, private=True, exist_ok=True))
        with tempfile.TemporaryDirectory(dir=job.path, prefix=".sent-") as scratch:
            parcel.pack(job, renting.wanted, Path(scratch))
            again(
                lambda: api.upload_folder(
                    repo_id=rent.repo, repo_type=far.KIND, folder_path=scratch, commit_message="to train"
                )
            )
        if job.stop.exists():
            return None
        there = _start(renting, rent)
        unless_rented.pop_all()
    rent = _kept(renting, rent, there.id)
    hardware = renting.hardware
    price = f"${hardware.job_usd:.2f} an hour, ${compute.most_usd(renting.wanted.compute):.2f} at most"
    yield Note(f"Rented: {hardware.title} at Hugging Face, {price}. Its page is {there.url}.")
    return rent


def _kept(renting: Renting, rent: Rent, id: str) -> Rent:
    rent = replace(rent, id=id)
    rent.keep(renting.job)
    return rent


def _start(renting: Renting, rent: Rent) -> JobInfo:
    needs_more = renting.wanted.train.method in methods.QUANTIZED
    more = parcel.pins("space_config/requirements-gpu.txt", "bitsandbytes") if needs_more else []
    try:
        return renting.api.run_job(
            image=IMAGE,
            command=["uv", "run", "--no-project", "--with", CLIENT, "python", "-c", BEGIN, rent.repo, *more],
            env={"HF_HUB_DISABLE_TELEMETRY": "1"},
            secrets={"HF_TOKEN": renting.api.token},
            flavor=renting.hardware.name,
            timeout=round(3600 * renting.wanted.compute.hours),
            name=rent.name,
            namespace=rent.namespace,
        )
    except errors.HfHubHTTPError as error:
        raise _refused(error, renting.api.endpoint) or error from None


def _forget(renting: Renting, rent: Rent) -> None:
    """Takes away what was sent, as nothing runs on it."""
    with contextlib.suppress(errors.HfHubHTTPError, httpx.HTTPError):
        renting.api.delete_repo(rent.repo, repo_type=far.KIND, missing_ok=True)
    renting.job.rented.unlink(missing_ok=True)


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


def again(ask: Callable[[], T]) -> T:
    """`ask()`, as often as a network takes that comes and goes."""
    for pause in _PAUSES_S:
        try:
            return ask()
        except (httpx.HTTPError, ConnectionError, errors.HfHubHTTPError) as error:
            if not may_pass(error):
                raise
            print(f"asked again in {pause:.0f} s: {type(error).__name__}", flush=True)
            time.sleep(pause)
    return ask()


def may_pass(error: Exception) -> bool:
    """Whether it may be otherwise in a while: a network, a server of the Hub, too many questions."""
    if not isinstance(error, errors.HfHubHTTPError):
        return True
    return error.response is None or error.response.status_code >= 500 or error.response.status_code == 429
