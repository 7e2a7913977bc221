"""Whether torch's threads spin or sleep, by what the kernel says of the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ft_core import jobs
from ft_core.train import engines, sft, waiting
from ft_core.workspace import Workspace
from tests.core.trainings import job_of, lighthouse

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="torch has other threads elsewhere")


def said_by(code: str) -> list[float]:
    """The numbers that a process of its own prints, started as a job is."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=jobs.child_environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    return [float(number) for number in done.stdout.split()]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has nobody to wait for")
def test_threads_spin_while_the_cores_are_free_and_sleep_while_others_want_them():
    """Told by the CPU time of half a second in which nothing is to do: here threads would spin for minutes."""
    free, wanted, free_again = said_by(
        """
import time
from ft_core.train import waiting
waiting.SPINS = 10**11
waiting.may_spin()
import torch
torch.set_num_threads(2)
share, so_far, moment, looks = 0.0, 0.0, time.monotonic(), 0
def waited():
    global so_far, moment, looks
    so_far, moment, looks = so_far + share * (time.monotonic() - moment), time.monotonic(), looks + 1
    return {"1": so_far}
def used(now):
    global share
    share = now
    seen = looks
    while looks < seen + 5:  # by then it has been seen and done
        time.sleep(0.01)
    torch.ones(2**20)  # the second thread has worked, and waits for more
    began = time.process_time()
    time.sleep(0.5)
    return time.process_time() - began
with waiting.by_load(waited, every_s=0.01):
    print(used(0.0), used(0.9), used(0.0))
"""
    )
    assert free > 0.05 and free_again > 0.05  # half a core or more on an idle machine
    assert wanted < min(free, free_again) / 5


def test_they_sleep_where_the_kernel_keeps_no_count():
    (used,) = said_by(
        """
import threading, time
from ft_core.train import waiting
waiting.SPINS = 10**11
waiting.may_spin()
import torch
torch.set_num_threads(2)
looks = threading.Semaphore(0)
def waited():
    looks.release()
    return {}
torch.ones(2**20)  # both threads are there, as in a training
with waiting.by_load(waited, every_s=0.01):
    for _ in range(5):
        looks.acquire()
    torch.ones(2**20)
    began = time.process_time()
    time.sleep(0.5)
    print(time.process_time() - began)
"""
    )
    assert used < 0.05


def test_a_thread_beside_another_on_its_core_has_waited():
    (waited,) = said_by(
        """
import os, subprocess, sys, time
from ft_core.train.waiting import seconds_waited
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
began = time.process_time()
while time.process_time() - began < 0.3:
    pass
print(seconds_waited()[str(os.getpid())])
other.kill()
"""
    )
    assert waited > 0.1  # two that want all of a core have half of it each


def test_a_training_is_watched_and_may_spin(workspace: Workspace, tiny_model: Path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(waiting, "may_spin", lambda: asked.append("may spin"))
    monkeypatch.setattr(engines, "enter", lambda *_: asked.append("the engine is loaded"))
    job = job_of(lighthouse(workspace), tiny_model, steps=1)
    names: set[str] = set()

    def must_end(within_s: float) -> bool:
        names.update(thread.name for thread in threading.enumerate())
        return False

    assert sft.full_at(job, lambda event: None, must_end) is None
    assert asked == ["may spin", "the engine is loaded"]
    assert "waiting" in names and "waiting" not in {thread.name for thread in threading.enumerate()}

    code = "import sys, ft_core.work; from ft_core.train import sft; print(int('torch' in sys.modules))"
    assert said_by(code) == [0], "torch reads how long to spin when it is loaded, which is before it was said"
