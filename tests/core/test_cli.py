"""The headless front door as scripts see it: keys, exit status, events, sentences."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ft_core.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    status: int
    lines: list[dict]
    errors: str

    @property
    def result(self) -> dict:
        return self.lines[-1]


@dataclass(frozen=True)
class FrontDoor:
    """`python -m ft_core --json` on one home and project."""

    home: Path
    project: str = "shop"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "ft_core", "--home", str(self.home), "--project", self.project, "--json", *words]

    def __call__(self, *words: str | Path, **environment: str) -> Answer:
        done = subprocess.run(
            self.command(*map(str, words)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **environment},
        )
        assert "Traceback" not in done.stderr
        return Answer(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)

    def refused(self, *words: str | Path, **environment: str) -> str:
        answer = self(*words, **environment)
        assert answer.status == 2, answer
        assert answer.errors.startswith("error: ") and "\nhint: " in answer.errors
        return answer.errors


@dataclass(frozen=True)
class InProcess(FrontDoor):
    """The same without a process for each call: for what a verb refuses before any work begins."""

    capsys: pytest.CaptureFixture[str] | None = None

    def __call__(self, *words: str | Path) -> Answer:
        status = main(self.command(*map(str, words))[3:])
        said = self.capsys.readouterr()
        return Answer(status, [json.loads(line) for line in said.out.splitlines()], said.err)


@pytest.fixture
def in_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> InProcess:
    return InProcess(tmp_path / "home", capsys=capsys)


@pytest.fixture
def front_door(tmp_path: Path) -> FrontDoor:
    return FrontDoor(tmp_path / "home")


ROWS = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n * 7}."}]}
    for n in range(20)
]


def rows_file(folder: Path, rows: list = ROWS) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe_file(folder: Path, base: Path, steps: int = 3) -> Path:
    """A recipe next to the base model it names, because its paths are relative to it."""
    path = folder / "recipe.yaml"
    relative = os.path.relpath(base, folder)
    path.write_text(
        f"model:\n  base: {relative}\ntrain:\n  steps: {steps}\n  evaluate_every: 2\n  save_every: 1\n"
        "  max_length: 128\n  precision: fp32\n  probes: ['What is 3?']\n"
    )
    return path


@dataclass(frozen=True)
class Trained:
    front_door: FrontDoor
    answer: Answer


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    front_door = FrontDoor(folder / "home")
    assert front_door("data", "import", rows_file(folder)).status == 0
    answer = front_door("train", recipe_file(folder, tiny_model))
    assert answer.status == 0, answer.errors
    return Trained(front_door, answer)


def test_import_says_what_came_and_what_was_left_out(front_door: FrontDoor, tmp_path: Path) -> None:
    rows = [*ROWS[:3], {"messages": [{"role": "user", "content": "no answer"}]}]
    answer = front_door("data", "import", rows_file(tmp_path, rows))
    assert answer.status == 0
    assert answer.result["added"] == 3
    assert answer.result["ended_at"] is None
    (skipped,) = answer.result["skipped"]
    assert skipped["file"].endswith("rows.jsonl") and skipped["row"] == 4 and skipped["reason"]


def test_a_refused_import_changes_nothing_and_leaves_no_project(front_door: FrontDoor, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text("".join(json.dumps(r) + "\n" for r in ROWS[:16]) + '{"messages": [\n' + json.dumps(ROWS[0]))
    assert "broken.jsonl" in (said := front_door.refused("data", "import", broken)) and "17" in said
    assert "there is no project" in front_door.refused("data", "stats")
    front_door("data", "import", rows_file(tmp_path))
    before = front_door("data", "stats").result
    front_door.refused("data", "import", broken)
    assert front_door("data", "stats").result == before
    partial = front_door("data", "import", broken, "--partial")
    assert partial.status == 0 and partial.result["added"] == 16 and "17" in partial.result["ended_at"]


def test_stats_split_undo_and_redo(front_door: FrontDoor, tmp_path: Path) -> None:
    front_door("data", "import", rows_file(tmp_path))
    stats = front_door("data", "stats").result
    assert stats["rows"] == 20 and len(stats["fingerprint"]) == 64
    assert front_door("data", "split", "--heldout", "0.25").result == {"train": 15, "heldout": 5}
    heldout = front_door("data", "export", tmp_path / "held.jsonl", "--split", "heldout")
    assert heldout.result["rows"] == 5 == len((tmp_path / "held.jsonl").read_text().splitlines())
    assert front_door("data", "undo").result["undone"]
    assert front_door("data", "undo").result["undone"]
    assert front_door("data", "stats").result["rows"] == 0
    assert front_door("data", "redo").result["redone"]
    assert front_door("data", "stats").result["rows"] == 20


def test_check_says_ready_or_what_to_mend(front_door: FrontDoor, tmp_path: Path) -> None:
    front_door("data", "import", rows_file(tmp_path, [*ROWS, ROWS[0]]))
    answer = front_door("data", "check")
    assert answer.status == 0
    assert isinstance(answer.result["ready"], bool)
    assert answer.result["flags"]["duplicate"] >= 1


def test_refusals_are_sentences(front_door: FrontDoor, tmp_path: Path) -> None:
    assert "there is no project 'shop'" in front_door.refused("train")
    assert "invalid choice" in front_door.refused("tarin")
    assert "no-such.csv" in front_door.refused("data", "import", "no-such.csv")
    front_door("data", "import", rows_file(tmp_path))
    assert "nothing is trained yet" in front_door.refused("chat", "hello")
    assert "nothing is trained yet" in front_door.refused("export", "--to", "adapter", "--out", tmp_path / "out")
    assert "there is no job" in front_door.refused("show", "no-such-job")
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text("train:\n  epoch: 2\n")
    assert "'epochs'" in front_door.refused("train", unknown)
    absolute = tmp_path / "absolute.yaml"
    absolute.write_text("model:\n  base: /models/mine\n")
    assert "absolute" in front_door.refused("train", absolute)


def test_a_base_model_that_does_not_exist_is_one_sentence(front_door: FrontDoor, tmp_path: Path) -> None:
    front_door("data", "import", rows_file(tmp_path))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model:\n  base: no-such/model\n")
    answer = front_door("train", recipe)
    assert answer.status in (2, 3)
    assert answer.errors.count("error: ") == 1 and "no-such/model" in answer.errors and "hint: " in answer.errors


def test_training_prints_events_and_ends_with_its_result(trained: Trained) -> None:
    events = trained.answer.lines[:-1]
    result = trained.answer.result
    assert {e["job"] for e in events} == {result["job"]}
    assert [e["step"] for e in events if e["event"] == "progress" and e["step"]][-1] == 3
    assert result["state"] == "finished" and result["steps"] == 3
    assert (Path(result["adapter"]) / "adapter_model.safetensors").exists()
    assert (Path(result["base"]) / "config.json").exists()
    assert result["heldout_after"] < result["heldout_before"]
    assert result["tokens_per_s"] > 0 and result["peak_memory_bytes"] > 2**20


def test_the_job_can_be_listed_and_shown(trained: Trained) -> None:
    (listed,) = trained.front_door("jobs").result["jobs"]
    assert listed["state"] == "finished"
    shown = trained.front_door("show", listed["job"]).result
    assert len(shown["metrics"]) >= 3 and shown["samples"]
    assert "finished" in trained.front_door.refused("resume", listed["job"])


def test_chat_answers_on_both_sides_and_proves_before(trained: Trained) -> None:
    answer = trained.front_door("chat", "What is 3?", "--side", "both", "--greedy", "--max-tokens", "8")
    assert answer.status == 0, answer.errors
    assert answer.result["proof"]["max_logit_difference"] == 0.0
    assert len(answer.result["proof"]["base_fingerprint"]) == 64
    assert isinstance(answer.result["before"], str) and isinstance(answer.result["after"], str)


def test_evaluate_agrees_with_the_training(trained: Trained) -> None:
    answer = trained.front_door("evaluate")
    assert answer.status == 0, answer.errors
    assert answer.result["before"] == pytest.approx(trained.answer.result["heldout_before"], abs=1e-4)
    assert answer.result["after"] == pytest.approx(trained.answer.result["heldout_after"], abs=1e-4)
    low, high = answer.result["interval"]
    assert low <= answer.result["difference"] <= high


def test_export_writes_where_it_is_told(trained: Trained, tmp_path: Path) -> None:
    answer = trained.front_door("export", "--to", "adapter", "--to", "merged", "--out", tmp_path / "out")
    assert answer.status == 0, answer.errors
    assert answer.result["verified"] is True
    assert all(Path(f).exists() and Path(f).is_relative_to(tmp_path / "out") for f in answer.result["files"])
    assert {"name", "kind", "passed", "figure"} <= set(answer.result["checks"][0])
    assert "gguf:Q9" in trained.front_door.refused("export", "--to", "gguf:Q9", "--out", tmp_path / "out")


def test_dry_run_trains_nothing(trained: Trained, tmp_path: Path) -> None:
    before = len(trained.front_door("jobs").result["jobs"])
    answer = trained.front_door("train", "--dry-run", "--steps", "5")
    assert answer.status == 0 and answer.result["steps"] == 5
    assert len(trained.front_door("jobs").result["jobs"]) == before


def test_run_does_all_that_the_recipe_names(front_door: FrontDoor, tiny_model: Path, tmp_path: Path) -> None:
    rows_file(tmp_path)
    recipe = recipe_file(tmp_path, tiny_model)
    recipe.write_text(
        "data:\n  files: [rows.jsonl]\n  system: Be brief.\n" + recipe.read_text() + "export:\n  to: [adapter]\n"
    )
    answer = front_door("run", recipe)
    assert answer.status == 0, answer.errors
    assert answer.result["data"]["added"] == 20
    assert answer.result["train"]["state"] == "finished"
    assert answer.result["compare"]["interval"]
    assert answer.result["export"]["verified"] is True


def test_interrupting_keeps_the_work_and_resume_goes_on(
    front_door: FrontDoor, tiny_model: Path, tmp_path: Path
) -> None:
    front_door("data", "import", rows_file(tmp_path))
    command = front_door.command("train", str(recipe_file(tmp_path, tiny_model, steps=2000)))
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        event = json.loads(line)
        if event.get("event") == "metric" and event["step"] >= 2:
            break
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    result = json.loads(said.splitlines()[-1])
    assert result["state"] == "stopped" and Path(result["adapter"]).exists()
    (job,) = front_door("jobs").result["jobs"]
    assert job["state"] == "stopped" and job["step"] >= 2
    assert front_door("chat", "What is 3?", "--max-tokens", "2").status == 0
    resumed = resume(front_door, job)
    assert "is running" in front_door.refused("resume", job["job"])
    assert front_door("stop", job["job"]).result["state"] == "stopped"
    resumed.communicate(timeout=60)
    assert resumed.returncode == 130
    resumed = resume(front_door, front_door("jobs").result["jobs"][0])
    folder = front_door.home / "local" / front_door.project / "jobs" / job["job"]
    child = (folder / "pid").read_text().split()[0]
    os.kill(int(child), signal.SIGINT)  # as when a supervisor interrupts all that it finds, the child first
    while not (folder / "stop").exists():
        time.sleep(0.01)
    resumed.send_signal(signal.SIGINT)
    resumed.communicate(timeout=60)
    assert resumed.returncode == 130
    assert front_door("show", job["job"]).result["state"] == "stopped"


def resume(front_door: FrontDoor, job: dict) -> subprocess.Popen:
    """A process that has taken the job up again, one step further."""
    process = subprocess.Popen(front_door.command("resume", job["job"]), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    heard = (json.loads(line) for line in process.stdout)
    first = next(e["step"] for e in heard if e.get("event") == "metric" and "loss" in e["values"])
    assert first == job["step"] + 1
    return process


def test_doctor_says_what_is_here(front_door: FrontDoor) -> None:
    answer = front_door("doctor")
    assert answer.status == 0
    assert answer.result["machine"]["cores"] >= 1 and answer.result["packages"]["torch"]


def test_a_defect_is_not_a_traceback(front_door: FrontDoor, tmp_path: Path) -> None:
    front_door("data", "import", rows_file(tmp_path))
    (front_door.home / "local" / "shop" / "data.sqlite").write_bytes(b"not a database" * 100)
    for shared in ("-wal", "-shm"):
        (front_door.home / "local" / "shop" / f"data.sqlite{shared}").unlink(missing_ok=True)
    answer = front_door("data", "stats")
    assert answer.status in (2, 70)
    assert answer.errors.startswith("error: ")


def test_events_come_as_they_happen(front_door: FrontDoor, tiny_model: Path, tmp_path: Path) -> None:
    front_door("data", "import", rows_file(tmp_path))
    began = time.monotonic()
    process = subprocess.Popen(
        front_door.command("train", str(recipe_file(tmp_path, tiny_model))),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    first = json.loads(process.stdout.readline())
    heard = time.monotonic() - began
    process.communicate(timeout=300)
    assert first["event"] == "queued"
    assert heard < (time.monotonic() - began) / 2


@pytest.mark.parametrize(
    "words",
    ["--heldout 0.9", "--heldout -1", "--heldout nan", "--heldout inf", "--seed -1", "--seed 9999999999"],
)
def test_a_split_keeps_to_the_recipes_limits(in_process: InProcess, tmp_path: Path, words: str) -> None:
    in_process("data", "import", rows_file(tmp_path))
    assert "It lies between" in in_process.refused("data", "split", *words.split())
    assert in_process("data", "stats").result["heldout"] == 0


@pytest.mark.parametrize("text", ["train: [1]\n", "train:\n  steps: x\n", "train:\n  probes: x\n", "[" * 5000])
def test_every_mistake_in_a_recipe_comes_with_a_hint(in_process: InProcess, tmp_path: Path, text: str) -> None:
    in_process("data", "import", rows_file(tmp_path))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    assert str(recipe) in in_process.refused("train", "--dry-run", recipe)


def test_no_rows_on_the_side_that_is_asked_for(in_process: InProcess, tmp_path: Path) -> None:
    in_process("data", "import", rows_file(tmp_path))
    assert "split" in in_process.refused("data", "export", tmp_path / "held.jsonl", "--split", "heldout")


def test_a_refused_import_spares_what_another_process_imported(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two imports make the same new project; the one that is refused must not take the other's rows with it."""
    from ft_core.data import formats
    from ft_core.data.store import Store
    from ft_core.errors import FTError

    def refuse(store: Store, *_: object) -> None:
        with Store(in_process.home / "local" / in_process.project / "data.sqlite") as other:
            other.add(list(formats.read(rows_file(tmp_path))))
        raise FTError("no row can be used", "Look at it.")

    with monkeypatch.context() as patch:
        patch.setattr(formats, "import_files", refuse)
        in_process.refused("data", "import", "rows.jsonl")
    assert in_process("data", "stats").result["rows"] == 20


@pytest.mark.parametrize(
    "text, named",
    [
        ("data: {files: [no-such.jsonl]}\n", "no-such.jsonl"),
        ("data: {files: [rows.jsonl]}\nmodel: {base: no-such/model}\n", "no-such/model"),
        ("data: {files: [rows.jsonl]}\nexport: {to: [gguf:Q9]}\n", "gguf:Q9"),
        ("data: {files: [rows.jsonl]}\nexport: {to: [hub]}\n", "token"),
    ],
)
def test_run_refuses_before_it_works_and_leaves_no_project(
    in_process: InProcess, tmp_path: Path, text: str, named: str
) -> None:
    rows_file(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    assert named in in_process.refused("run", recipe)
    assert "there is no project" in in_process.refused("data", "stats")


def test_generate_that_is_refused_leaves_no_project(in_process: InProcess) -> None:
    in_process.refused("generate", "-n", "0")
    in_process.refused("generate", "-n", "3", "--temperature", "9")
    assert "there is no project" in in_process.refused("jobs")


def test_running_a_recipe_twice_makes_no_row_twice(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ft_core import events, jobs, recipe
    from ft_core.generate import synthesize
    from ft_core.train import start as training
    from ft_core.workspace import Job, Project

    def finished(project: Project, wanted: recipe.Recipe, *_: object) -> Job:
        """A job that is over at once: what jobs do is not the matter here."""
        job = jobs.create(project, "generate" if wanted.generate.rows else "train", wanted)
        writer = events.EventWriter(job.events)
        writer.write(events.Finished({"added": 3}))
        writer.close()
        return job

    monkeypatch.setattr(synthesize, "start", finished)
    monkeypatch.setattr(training, "start", finished)
    rows_file(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text("data: {files: [rows.jsonl]}\ngenerate: {rows: 3}\n")
    first, second = in_process("run", path).result, in_process("run", path).result
    assert first["data"] == {"added": 20} and first["generate"]["added"] == 3
    assert second["data"] == {"added": 0} and "generate" not in second
    assert in_process("data", "stats").result["rows"] == 20


def test_a_job_that_was_stopped_while_it_waited_ends_its_verb_with_130(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ft_core import events, jobs, recipe
    from ft_core.train import start as training
    from ft_core.workspace import Job, Project

    def stopped(project: Project, wanted: recipe.Recipe, *_: object) -> Job:
        job = jobs.create(project, "train", wanted)
        writer = events.EventWriter(job.events)
        writer.write(events.Stopped(0))
        writer.close()
        return job

    monkeypatch.setattr(training, "start", stopped)
    in_process("data", "import", rows_file(tmp_path))
    answer = in_process("train")
    assert answer.status == 130
    assert answer.result["state"] == "stopped" and answer.result["job"]


def test_stopping_a_job_that_never_started_does_not_wait_for_it(in_process: InProcess, tmp_path: Path) -> None:
    from ft_core import jobs, recipe
    from ft_core.workspace import Workspace

    in_process("data", "import", rows_file(tmp_path))
    job = jobs.create(Workspace.at(in_process.home).project(in_process.project), "train", recipe.Recipe())
    assert in_process("stop", job.id).result["state"] == "queued"


def test_a_training_that_cannot_be_frozen_leaves_no_job(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ft_core.train import start as training

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    in_process("data", "import", rows_file(tmp_path))
    monkeypatch.setattr(training, "freeze", interrupted)
    assert in_process("train").status == 130
    assert in_process("jobs").result == {"jobs": []}


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_is_no_whole_model_is_refused_at_once(
    in_process: InProcess, tiny_model: Path, tmp_path: Path, missing: str
) -> None:
    half = tmp_path / "half"
    half.mkdir()
    for file in tiny_model.iterdir():
        if file.name != missing:
            (half / file.name).symlink_to(file)
    in_process("data", "import", rows_file(tmp_path))
    said = in_process.refused("train", recipe_file(tmp_path, half))
    assert "half has no whole model" in said and str(tmp_path) not in said
    assert in_process("jobs").result == {"jobs": []}


def test_a_reader_that_leaves_is_no_defect(front_door: FrontDoor, tmp_path: Path) -> None:
    front_door("data", "import", rows_file(tmp_path))
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        front_door.command("data", "stats"), cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")


def test_json_is_utf8_whatever_the_language_of_the_terminal(front_door: FrontDoor, tmp_path: Path) -> None:
    front_door("data", "import", rows_file(tmp_path))
    path = tmp_path / "köln.jsonl"
    answer = front_door("data", "export", path, PYTHONIOENCODING="ascii")
    assert answer.status == 0 and answer.result["path"] == str(path)


def test_a_home_that_cannot_be_written_is_said_before_any_work(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_process.home / "cache").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != in_process.home)  # root may write everywhere
    assert "cannot be written" in in_process.refused("data", "stats")


def test_a_trace_goes_to_the_terminal_when_the_log_cannot_be_written(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ft_core.data import formats

    def defect(*_: object) -> None:
        raise AssertionError("a defect of ours")

    monkeypatch.setattr(formats, "import_files", defect)
    (in_process.home / "log.txt").mkdir(parents=True)
    answer = in_process("data", "import", rows_file(tmp_path))
    assert answer.status == 70
    assert "a defect of ours" in answer.errors and "hint: " in answer.errors


def test_a_field_is_mapped_once(in_process: InProcess, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Frage,Antwort\nWas?,Das.\n")
    twice = in_process.refused("data", "import", path, "--map", "prompt=Frage", "--map", "prompt=Antwort")
    assert "two columns for prompt" in twice
    assert in_process("data", "import", path, "--map", "prompt=Frage", "--map", "completion=Antwort").status == 0
