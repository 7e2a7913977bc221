"""How torch's threads wait for one another on a CPU: awake while the cores are free, asleep while others want them.

A step of a small model is some thousand products and kernels, and each begins when every thread has ended the one
before. To wake a thread takes up to 0.1 ms on a virtual machine, as long as a small product does; one that spins for
that long is there at once, and a step takes up to a third less. But where other programs want the cores, who spins
keeps them from the thread that it waits for, and a step takes a third longer. So the kernel is asked now and then how
long this process's threads have waited for a core.

The threads are libgomp's, as torch has them on Linux. How long one spins is read once, when torch is loaded; but none
does while the process has more of them than there are cores (GCC, libgomp/config/linux/wait.h). So one more team that
does nothing puts all to sleep, and its end lets them spin again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SPINS = 5_000
"""Turns of the loop that a thread spins: 0.1 to 0.25 ms."""
WANTED = 0.18
"""Share of the time that a thread has waited for a core, from which on others want it enough for sleep to be faster.

Beside a program that wants a core for a third of the time our threads wait 0.07 to 0.16, and to spin is a seventh
faster; beside one that wants it for two thirds 0.16 to 0.29, and it makes no difference.
"""
LOOK_S = 0.5
"""Between two questions to the kernel."""


def may_spin() -> None:
    """Lets the threads of this process's torch spin, where that is not loaded yet."""
    if "torch" not in sys.modules:
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


@contextlib.contextmanager
def by_load(waited: Callable[[], dict[str, float]] | None = None, every_s: float = LOOK_S) -> Iterator[None]:
    """Until its end torch's threads sleep or spin as the cores are wanted; they sleep where nobody can tell.

    `waited` says of each thread how many seconds it has waited for a core so far; the kernel's word by default.
    """
    over = threading.Event()
    watched = (waited or seconds_waited, every_s, over, _Idlers())
    watch = threading.Thread(target=_watch, args=watched, name="waiting", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def seconds_waited() -> dict[str, float]:
    """Of each thread of this process; none where the kernel keeps no count.

    Source: Documentation/scheduler/sched-stats.rst of Linux: time run and time waited in ns, and times begun.
    """
    found = {}
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended
            run, waited, _ = (thread / "schedstat").read_text().split()
            if int(run):
                found[thread.name] = int(waited) / 1e9
    return found


def _watch(
    waited: Callable[[], dict[str, float]], every_s: float, over: threading.Event, asleep: _Idlers | None
) -> None:
    before, looked = waited(), time.monotonic()
    while not over.wait(every_s):
        now, moment = waited(), time.monotonic()
        longest = max((now[thread] - before[thread] for thread in now.keys() & before.keys()), default=float("inf"))
        wanted = longest / (moment - looked) > WANTED
        before, looked = now, moment
        if wanted and not asleep:
            asleep = _Idlers()
        elif asleep and not wanted:
            asleep.end()
            asleep = None
    if asleep:
        asleep.end()


class _Idlers:
    """A team of as many threads as there are cores, with nothing to do; it is its first thread's, and ends with it."""

    def __init__(self):
        self._over = threading.Event()
        there = threading.Event()
        self._first = threading.Thread(target=self._idle, args=(there,), name="idle team", daemon=True)
        self._first.start()
        there.wait()

    def end(self) -> None:
        self._over.set()
        self._first.join()

    def _idle(self, there: threading.Event) -> None:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(_cores())  # its own, and that of threads to come, which is put back
        torch.zeros(2**20)
        torch.set_num_threads(threads)
        there.set()
        self._over.wait()


def _cores() -> int:
    """As libgomp counts them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
