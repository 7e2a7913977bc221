"""The far side of a rented training: what runs on the machine of Hugging Face, as `python -m ft_core.train.far`.

The repository that the training was sent in is the FT_HOME of that machine, and the training a job like any other in
it. Its events go to the standard output, one a line after MARK; its checkpoints go into the repository as they come,
so that little is lost with the machine. Whoever puts a file STOP into the repository stops it as `stop` does here.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from huggingface_hub import HfApi, errors
from huggingface_hub.utils import get_session, httpx

from .. import events, jobs
from ..events import EventWriter, Failed, Queued, State
from ..workspace import Job, Workspace
from . import checkpoints

MARK = "ft-flow "
"""What stands in a line of the log before an event."""
PROJECT = "rented"
KIND = "dataset"
"""Of the repository: models are what the Hub shows as such, and rows travel too."""
STOP = "stop"
ANSWERS_WITHIN_S = 120.0
"""The client of the Hub would wait without end for an answer that was lost on the way."""
LOST = (errors.HfHubHTTPError, httpx.HTTPError, OSError, ValueError)
"""What a way that comes and goes raises, an answer that was cut short, a file that was pruned while it was read."""
_LOOK_S = 5.0
_PAUSES_S = (1.0, 10.0, 60.0, 300.0)
"""Before the last word is sent again."""


def folder_of(job_id: str) -> str:
    """Where the job lies in the repository."""
    return f"local/{PROJECT}/jobs/{job_id}"


def main(repo: str, home: str) -> int:
    """Trains; HF_TOKEN is the environment's. Returns the exit status: 0, or 3 when the training failed."""
    (job,) = Workspace.at(home).project(PROJECT).jobs()
    api = HfApi(token=os.environ["HF_TOKEN"])
    get_session().timeout = ANSWERS_WITHIN_S
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: jobs.stop(job))
    _say(job, Queued("train"))  # or its events would end with how it ended before
    offset = job.events.stat().st_size
    jobs.start(job)
    over = threading.Event()
    errands = threading.Thread(target=_run_errands, args=(api, repo, job, over))
    errands.start()
    for event in jobs.follow(job, offset):
        print(MARK + events.line(event), flush=True)
    over.set()
    seen = jobs.view(job)
    if seen.state is State.INTERRUPTED:
        _say(job, Failed("the training's process was killed on the rented machine: memory ran out there, most likely",
                         "Rent a machine with more memory, or lower micro_batch or max_length."))  # fmt: skip
    errands.join()
    if job.log.exists():
        print(job.log.read_text(encoding="utf-8", errors="replace")[-5000:], flush=True)
    for pause in _PAUSES_S:
        try:
            _send(api, repo, job, "the result")
            break
        except LOST as error:
            print(f"the result could not be sent: {error}", flush=True)
            time.sleep(pause)
    return 0 if seen.state in (State.FINISHED, State.STOPPED) else 3


def _say(job: Job, event: events.Event) -> None:
    writer = EventWriter(job.events)
    writer.write(event)
    writer.close()


def _run_errands(api: HfApi, repo: str, job: Job, over: threading.Event) -> None:
    """Sends each new checkpoint, and hears whether somebody wants the end."""
    sent = checkpoints.last_whole(job)
    while not over.wait(_LOOK_S):
        try:
            if not job.stop.exists() and api.file_exists(repo, STOP, repo_type=KIND):
                jobs.stop(job)
            if (last := checkpoints.last_whole(job)) and last != sent:
                _send(api, repo, job, f"step {checkpoints.step_of(last)}")
                sent = last
        except LOST as error:
            print(f"not sent, and tried again: {error}", flush=True)


def _send(api: HfApi, repo: str, job: Job, what: str) -> None:
    """The job's folder as it is now, in one commit: of what may change or go meanwhile, copies and links."""
    stage = job.path / ".sent"
    shutil.rmtree(stage, ignore_errors=True)
    collect(job, stage)
    api.upload_folder(
        repo_id=repo,
        repo_type=KIND,
        folder_path=stage,
        path_in_repo=folder_of(job.id),
        commit_message=what,
        delete_patterns=["checkpoints/*"],  # those that were pruned here
    )
    shutil.rmtree(stage)


_STAYS = {"pid", "stop", "seen", "about.json", "rented.json", "export", "log.txt", "tensorboard", "trackio", "wandb"}
"""What of a job's folder is of this machine, or a person's."""


def collect(job: Job, into: Path) -> None:
    """What makes up the job, in `into`: weights as links, all else as copies; of checkpoints those that are whole."""
    into.mkdir(parents=True)
    for path in job.path.iterdir():
        if path.name in _STAYS or path.name.startswith("."):
            continue
        if path == job.checkpoints:
            for checkpoint in filter(checkpoints.is_whole, path.glob("checkpoint-*")):
                shutil.copytree(checkpoint, into / path.name / checkpoint.name, copy_function=_link)
        elif path.is_dir():
            shutil.copytree(path, into / path.name)
        else:
            shutil.copyfile(path, into / path.name)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a disk that knows no links
        shutil.copyfile(source, target)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
