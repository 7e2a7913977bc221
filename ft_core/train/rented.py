"""A training on a machine of Hugging Face that is rented by the minute (Jobs): sent there, followed, brought home.

It is a job of the project like any other, and its process is the one here that follows it; far.py runs there. The
process here may end: the machine there goes on, and a resume follows it again.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Generator, Iterator

from huggingface_hub import HfApi, errors
from huggingface_hub.utils import get_session, httpx

from .. import events, recipe
from ..data import repository
from ..errors import FTError
from ..events import Event, Failed, Finished, Note, Progress, Stopped
from ..workspace import Job
from . import checkpoints, far, trackers
from .brought_home import bring_home
from .rent import Rent, Renting, again, check, found, may_pass, send

_OVER = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
_LOOK_S = 10.0
"""Between two questions how the machine is."""
_STOPS_WITHIN_S = 180.0
"""After so long a machine that was asked to stop, and save, is cancelled."""
_KEPT = "nothing is lost: resume goes on where it was"


def run(job: Job, secrets: dict[str, str], endpoint: str | None = None) -> Iterator[Event]:
    """The whole of it, for the process here. Ends with Finished, or with Stopped once `job.stop` exists.

    Raises FTError when it cannot be rented, when it failed there, and when the Hub cannot be reached for good.
    """
    wanted = recipe.load(job.recipe)
    token = secrets.get("HF_TOKEN", "")
    check(wanted, token)
    renting = Renting.of(job, wanted, HfApi(endpoint=endpoint, token=token))
    with repository.refusals(renting.api.endpoint, _KEPT):
        get_session().timeout = far.ANSWERS_WITHIN_S  # of this process: an answer that was lost is asked for again
        yield from trackers.told(job, _rented(renting))


def _rented(renting: Renting) -> Iterator[Event]:
    last = checkpoints.last_whole(renting.job)
    step = checkpoints.step_of(last) if last else 0
    rent = found(renting) or (yield from send(renting, step))
    if rent is None:
        yield Stopped(step, {})
        return
    step = yield from _Following(renting, rent, step).follow()
    yield from bring_home(renting, rent, step)


class _Following:
    """What is said there, until the machine is given back."""

    def __init__(self, renting: Renting, rent: Rent, step: int):
        self.renting, self.rent, self.job, self.api = renting, rent, renting.job, renting.api
        self.step = step
        self.known = {events.line(event) for event in events.read(self.job.events)[0]}
        self.trains = False
        self.stage = ""
        self.asked_at = 0.0
        """When it was asked to stop."""

    def follow(self) -> Generator[Event, None, int]:
        """Returns the last step that was heard of."""
        said: queue.SimpleQueue[str] = queue.SimpleQueue()
        over = threading.Event()
        threading.Thread(target=self._listen, args=(said, over), daemon=True).start()
        try:
            yield from self._heard(said)
        finally:
            over.set()
        return self.step

    def _heard(self, said: queue.SimpleQueue[str]) -> Iterator[Event]:
        look_at, lost = 0.0, False
        while True:
            try:
                event = self._event(said.get(timeout=0.5))
            except queue.Empty:
                event = None
            if event:
                self.trains = True
                yield event
                continue
            if self.job.stop.exists() and not self.asked_at and self.stage not in _OVER:
                look_at = 0.0
                yield self.renting.progress(self.step, "asking the rented machine to stop, and to keep what it has")
                self._ask_to_stop()
            if self.asked_at and self.trains and time.monotonic() - self.asked_at > _STOPS_WITHIN_S:
                self.asked_at, self.trains = time.monotonic(), False
                again(self._cancel)
            if time.monotonic() < look_at:
                continue
            look_at = time.monotonic() + (1.0 if self.asked_at else _LOOK_S)
            try:
                now = str(self.api.inspect_job(job_id=self.rent.id, namespace=self.rent.namespace).status.stage)
            except (httpx.HTTPError, ConnectionError, errors.HfHubHTTPError) as error:
                if not may_pass(error):
                    raise
                if not lost:
                    lost = True
                    yield Note("Hugging Face cannot be reached at the moment; the training goes on there.")
                continue
            lost = False
            if now in _OVER:
                return
            if now != self.stage:
                self.stage = now
                if not self.trains:
                    yield self._waiting()

    def _waiting(self) -> Progress:
        waits = f"waiting for a {self.renting.hardware.title} at Hugging Face"
        installs = "the rented machine installs what it needs"
        return self.renting.progress(self.step, installs if self.stage == "RUNNING" else waits)

    def _ask_to_stop(self) -> None:
        self.asked_at = time.monotonic()
        if self.trains:
            stop = {"path_or_fileobj": b"stop", "path_in_repo": far.STOP}
            again(lambda: self.api.upload_file(**stop, repo_id=self.rent.repo, repo_type=far.KIND))
        else:  # there is nothing to keep yet
            again(self._cancel)

    def _cancel(self) -> None:
        self.api.cancel_job(job_id=self.rent.id, namespace=self.rent.namespace)

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
        _, mark, said = line.partition(far.MARK)  # a bar that another program draws there may stand before it
        if not mark:
            return None
        try:
            event = events.from_dict(json.loads(said))
        except (ValueError, FTError):  # cut short on its way; the repository has it whole
            return None
        if isinstance(event, Finished | Stopped | Failed | events.Queued) or events.line(event) in self.known:
            return None
        self.known.add(events.line(event))
        if isinstance(event, Progress):
            self.step = event.step
        return event
