"""The engine as the page meets it: a real child process, several threads, work that takes the machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ft_core import jobs
from ft_core.compare.client import LOG, EngineClient, Engines
from ft_core.compare.engine import base_fingerprint
from ft_core.conversation import Message
from ft_core.errors import FTError
from ft_core.recipe import CompareRecipe
from ft_core.workspace import Job, Workspace

from .adapters import make_adapter, trained_job

CHATS = {"before": (Message("user", "Do you ship?"),), "after": (Message("user", "Do you ship?"),)}
SHORT = CompareRecipe(max_tokens=8, temperature=0.0)
LONG = CompareRecipe(max_tokens=480, temperature=0.9, top_p=1.0)


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tiny_model, tmp_path_factory.mktemp("adapters") / "adapter")


@pytest.fixture(scope="module")
def shared(tiny_model: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineClient]:
    """One child for the tests that leave it as it was: it takes seconds to start."""
    engines = Engines()
    yield engines.of(trained_job(Workspace.at(tmp_path_factory.mktemp("home")), tiny_model, adapter))
    engines.close()


@pytest.fixture
def engines() -> Iterator[Engines]:
    engines = Engines()
    yield engines
    engines.close()


@pytest.fixture
def job(workspace: Workspace, tiny_model: Path, adapter: Path) -> Job:
    return trained_job(workspace, tiny_model, adapter)


def last(deltas) -> dict:
    return {d.side: d for d in deltas}


def pid(client: EngineClient) -> int:
    return client.engines._child.process.pid


def test_both_sides_answer_and_the_process_stays(shared: EngineClient) -> None:
    once = last(shared.ask(CHATS, SHORT))
    assert {d.tokens for d in once.values()} == {8} and all(d.done for d in once.values())
    first = pid(shared)
    assert {s: d.text for s, d in last(shared.ask(CHATS, SHORT)).items()} == {s: d.text for s, d in once.items()}
    assert set(last(shared.ask({"after": CHATS["after"]}, SHORT))) == {"after"}
    assert pid(shared) == first


def test_proof(shared: EngineClient, tiny_model: Path) -> None:
    proof = shared.proof()
    assert (proof.max_logit_difference, proof.precision) == (0.0, "fp32")
    assert proof.base_fingerprint == base_fingerprint(tiny_model) and proof.after_difference > 0
    assert shared.proof("bf16").precision == "bf16"


def test_pages_wait_for_each_other(shared: EngineClient) -> None:
    """Each thread hears its own answer whole, though all ask at once."""
    heard = {}
    alone = last(shared.ask(CHATS, SHORT))

    def page(n: int) -> None:
        heard[n] = last(shared.ask(CHATS, CompareRecipe(max_tokens=n, temperature=0.0), asker=str(n)))

    pages = [threading.Thread(target=page, args=(n,)) for n in range(2, 8)]
    [p.start() for p in pages]
    [p.join(60) for p in pages]
    assert {n: {d.tokens for d in answers.values()} for n, answers in heard.items()} == {n: {n} for n in range(2, 8)}
    assert all(alone["after"].text.startswith(answers["after"].text) for answers in heard.values())


def test_cancel_ends_the_answer_of_this_page_alone(shared: EngineClient) -> None:
    answer = shared.ask(CHATS, LONG, asker="mine")
    first = next(answer)
    waits = shared.ask(CHATS, SHORT, asker="mine, too")
    shared.cancel("somebody else")
    assert not next(answer).done
    shared.cancel("mine")
    rest = last(answer)
    assert all(d.done and first.tokens <= d.tokens < LONG.max_tokens for d in rest.values())
    assert all(d.tokens == 8 for d in last(waits).values())


def test_cancel_while_waiting(shared: EngineClient) -> None:
    answer = shared.ask(CHATS, LONG, asker="first")
    next(answer)
    heard: list = []
    waiting = threading.Thread(target=lambda: heard.append(list(shared.ask(CHATS, SHORT, asker="second"))))
    waiting.start()
    time.sleep(0.3)
    shared.cancel("second")
    waiting.join(5)
    assert heard == [[]]
    answer.close()


def test_a_page_that_goes_away_leaves_no_answer_behind(shared: EngineClient) -> None:
    answer = shared.ask(CHATS, LONG)
    next(answer)
    answer.close()
    began = time.monotonic()
    assert all(d.tokens == 8 for d in last(shared.ask(CHATS, SHORT)).values())
    assert time.monotonic() - began < 10


def test_what_the_template_or_the_model_refuses_is_a_sentence(shared: EngineClient) -> None:
    with pytest.raises(FTError, match="512") as error:
        list(shared.ask({"before": (Message("user", "word " * 600),)}, SHORT))
    assert error.value.hint
    assert last(shared.ask(CHATS, SHORT))


def test_another_job_takes_the_place(engines: Engines, job: Job, tiny_model: Path, adapter: Path) -> None:
    other = trained_job(job.project.workspace, tiny_model, adapter)
    assert last(engines.of(job).ask(CHATS, SHORT))
    first = engines._child.process
    assert last(engines.of(other).ask(CHATS, SHORT))
    assert first.poll() == 0 and engines._child.process.poll() is None


def test_a_dead_child_is_a_sentence_and_the_next_question_starts_another(engines: Engines, job: Job) -> None:
    client = engines.of(job)
    answer = client.ask(CHATS, LONG)
    next(answer)
    engines._child.process.send_signal(signal.SIGKILL)
    with pytest.raises(FTError, match="ended without a word") as error:
        list(answer)
    assert LOG in error.value.hint
    assert last(client.ask(CHATS, SHORT))


def test_closing_waits_for_nobody(engines: Engines, job: Job) -> None:
    """A page may have stopped listening in the middle of an answer."""
    answer = engines.of(job).ask(CHATS, LONG)
    next(answer)
    child = engines._child.process
    engines.close()
    assert child.poll() == 0
    assert last(answer)["after"].tokens < LONG.max_tokens


def test_training_has_the_machine(engines: Engines, job: Job) -> None:
    """It is refused before, and broken off in the middle of, an answer; an idle child leaves."""
    client, workspace = engines.of(job), job.project.workspace
    answer = client.ask(CHATS, LONG)
    next(answer)
    with jobs.machine(workspace, f"train {job.id}"):
        with pytest.raises(FTError, match="training has the machine"):
            list(answer)
        with pytest.raises(FTError, match="training has the machine") as error:
            list(client.ask(CHATS, SHORT))
        assert "when it is done" in error.value.hint
        assert engines._child.process.wait(10) == 0
    assert last(client.ask(CHATS, SHORT))


def test_a_broken_adapter_is_a_sentence(engines: Engines, job: Job) -> None:
    (job.adapter / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(FTError, match="cannot be read"):
        engines.of(job).proof()


def test_the_child_ends_with_its_parent_and_keeps_stdout_clean(job: Job) -> None:
    """Driven by hand: every line is JSON, and the end of its input is its end."""
    command = [sys.executable, "-m", "ft_core", "--home", str(job.project.workspace.home), "compare-engine"]
    ask = {"id": 7, "op": "ask", "chats": {"after": [{"role": "user", "content": "Hi"}]}, "precision": "bf16"}
    ask |= {"max_tokens": 4, "temperature": 0.0, "top_p": 1.0, "seed": 0}
    child = subprocess.Popen(
        [*command, str(job.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=jobs.child_environment()
    )
    child.stdin.write(json.dumps(ask).encode() + b"\n")
    child.stdin.flush()
    lines = []
    for line in child.stdout:
        lines.append(json.loads(line))
        if "end" in lines[-1]:
            break
    assert {line["id"] for line in lines} == {7} and lines[-2]["done"] and lines[-2]["side"] == "after"
    child.stdin.close()
    assert child.wait(20) == 0 and child.stdout.read() == b""
    child.stdout.close()


def test_an_idle_child_leaves(job: Job) -> None:
    code = "import sys; from ft_core.work import job_at; from ft_core.compare import server; from pathlib import Path;"
    code += f"sys.exit(server.main(job_at(Path({str(job.project.workspace.home)!r}), Path({str(job.path)!r})), 0.5))"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=jobs.child_environment())
    assert child.wait(60) == 0
    child.stdin.close()


def test_the_client_loads_nothing_heavy() -> None:
    code = "import sys, ft_core.compare.client, ft_core.compare.start; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=jobs.child_environment())
    assert found.stdout.strip() == "False"
