"""What a child of the front door answers while somebody waits."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from ft_core import jobs
from ft_core.errors import FTError

LATE, BROKEN = FTError("it took too long", "Wait."), FTError("it broke", "Try again.")


def hear(code: str, patience_s: float = 60):
    """What is heard of a child that runs `code`."""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        return jobs.heard(child, "a secret", patience_s, LATE, BROKEN)
    finally:
        assert child.poll() is not None


def test_the_last_line_is_the_result_and_what_is_said_goes_in_by_standard_input() -> None:
    assert hear("import json; print('on the way'); print(json.dumps({'heard': input()}))") == {"heard": "a secret"}


def test_a_refusal_comes_through_in_the_childs_own_words() -> None:
    with pytest.raises(FTError) as told:
        hear("import sys; sys.exit('llama says\\nerror: it is broken: twice\\nhint: mend it')")
    assert (told.value.message, told.value.hint) == ("it is broken: twice", "mend it")


@pytest.mark.parametrize("code", ["import os; os.kill(os.getpid(), 9)", "import sys; sys.exit('error: internal')"])
def test_a_child_that_ends_without_a_word_is_broken(code: str) -> None:
    with pytest.raises(FTError) as told:
        hear(code)
    assert told.value is BROKEN


def test_a_child_that_takes_too_long_is_ended() -> None:
    with pytest.raises(FTError) as told:
        hear("import time; time.sleep(600)", patience_s=0.5)
    assert told.value is LATE


def test_the_front_door_is_a_child_that_answers(tmp_path) -> None:
    with pytest.raises(FTError, match="no project"):
        jobs.heard(jobs.front_door("--home", str(tmp_path), "data", "stats"), "", 60, LATE, BROKEN)


def test_memory_that_a_step_gave_back_is_there_for_the_next() -> None:
    """The system would hand it out as empty pages of 4 KB, 4,096 for each of these, at each step of a training.

    A training is in a thread, for which the allocator would have an arena that gives back what it has.
    """
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split("."))) < (2, 35):
        pytest.skip("other memory allocators have other ways to be told")
    code = (
        "import resource, threading, torch\n"
        "def steps(times):\n"
        "    for _ in range(times): [torch.ones(2**22) for _ in range(8)]\n"
        "def trained():\n"
        "    steps(1)\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    steps(8)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
        "threading.Thread(target=trained).start()"
    )

    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | jobs.CHILD_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(said.stdout) < 1_000
