"""An import as a job, in real child processes; and rows of the Hub with the real `datasets` client."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ft_core import events, jobs
from ft_core.data import take
from ft_core.data.reading import HubRows, Pasted
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import Finished, State, Stopped
from ft_core.workspace import Job, Project, Workspace
from tests.stand_ins import serving
from tests.stand_ins.hub import READER, Hub, Repo

LINE = '{"prompt": "Do you ship?", "completion": "Yes."}\n'


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return workspace.project("fjord", create=True)


def saved(folder: Path, text: str, name: str = "rows.jsonl") -> Path:
    (folder / name).write_text(text)
    return folder / name


def not_started(monkeypatch, *args, **options) -> Job:
    """The job as it is before its process runs, to be run here."""
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "start", lambda job, secrets=None: None)
        return take.start(*args, **options)


def test_an_uploaded_file_is_taken_beside_a_training_and_removed(project: Project, tmp_path: Path) -> None:
    upload = saved(tmp_path, LINE * 1500 + '{"prompt": "a"}\n')
    with jobs.machine(project.workspace, "a training"):  # which an import does not wait for
        job = take.start(project, upload, uploaded=True, who="ada", token="hf_secret")
        assert not upload.exists()
        seen = jobs.wait(job)
    assert (seen.kind, seen.state, seen.error) == ("import", State.FINISHED, "")
    skipped = {"file": "rows.jsonl", "row": 1501, "reason": "it has no answer"}
    assert seen.result == {"added": 1500, "skipped": [skipped], "skipped_rows": 1, "ended_at": None}
    with Store(project.data) as store:
        assert store.count() == 1500 and store.index(seconds=0) == 0
        assert (store.log()[0].what, store.log()[0].who) == ("1,500 rows added", "ada")
    assert not (job.path / "taken").exists()
    assert not [p for p in job.path.rglob("*") if b"hf_secret" in p.read_bytes()]


def test_a_refused_upload_is_there_for_another_try(project: Project, tmp_path: Path) -> None:
    job = take.start(project, saved(tmp_path, LINE * 3 + "{"), uploaded=True)
    seen = jobs.wait(job)
    assert seen.state is State.FAILED and "rows.jsonl is broken at line 4" in seen.error and seen.hint
    again = take.start(project, take.left(job), uploaded=True, partial=True)
    seen = jobs.wait(again)
    assert seen.result["added"] == 3 and seen.result["ended_at"].startswith("rows.jsonl, line 4: ")
    assert take.left(job) is None and take.left(again) is None


def test_stop_adds_nothing(project: Project, tmp_path: Path, monkeypatch) -> None:
    job = not_started(monkeypatch, project, saved(tmp_path, LINE * 5000))
    job.stop.touch()
    assert isinstance(list(take.run(job, {}))[-1], Stopped)
    with Store(project.data) as store:
        assert store.count() == 0 and not store.log()
    job.stop.unlink()
    assert list(take.run(job, {}))[-1].result["added"] == 5000


def test_a_job_that_was_killed_after_its_rows_were_in_adds_them_once(project, tmp_path, monkeypatch) -> None:
    job = not_started(monkeypatch, project, saved(tmp_path, LINE * 700))
    assert isinstance(list(take.run(job, {}))[-1], Finished)  # the word of which is lost, and the job resumed
    assert list(take.run(job, {}))[-1].result["added"] == 700
    with Store(project.data) as store:
        assert store.count() == 700 and len(store.log()) == 1


def test_pasted_text_and_other_columns(project: Project) -> None:
    job = take.start(project, Pasted("Frage\tAntwort\nq\ta\n"), mapping={"prompt": "Frage", "answer": "Antwort"})
    assert jobs.wait(job).result["added"] == 1
    with Store(project.data) as store:
        assert store.rows()[0].conversation.origin == "pasted text row 1"
    assert not (job.path / "taken").exists()


def test_what_cannot_begin(project: Project, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(FTError, match="none.csv is not here"):
        take.start(project, tmp_path / "none.csv")
    with pytest.raises(FTError, match="letters that no token has"):
        take.start(project, "hub:a/b", token="“x”")
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    with pytest.raises(FTError, match="paths of a Space"):
        take.start(project, saved(tmp_path, LINE))
    with pytest.raises(FTError, match="s3:// is not read on a Space"):
        take.start(project, "s3://bucket/a.csv")
    assert project.jobs() == []


# --- the Hub

CARD = """---
license: cc-by-4.0
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: test, path: data/test-*}
- config_name: other
  data_files: other/*
---
# Fjord
"""


def parquet(rows: list[dict]) -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), data)
    return data.getvalue()


@pytest.fixture(scope="module")
def hub() -> Hub:
    hub = Hub()
    rows = [{"question": f"Q{i}", "answer": f"A{i}", "more": {"n": i}} for i in range(300)]
    files = {
        "README.md": CARD.encode(),
        "data/train-0.parquet": parquet(rows),
        "data/test-0.parquet": parquet([{"question": "T", "answer": "T", "more": {"n": 0}}]),
        "other/a.parquet": parquet([{"prompt": "P", "completion": "C"}]),
    }
    hub.repos["datasets/writer/fjord"] = Repo("writer", files=files)
    hub.repos["datasets/writer/gated"] = Repo("writer", gated=True, files=dict(files))
    hub.repos["datasets/reader/own"] = Repo("reader", private=True, files=dict(files))
    hub.repos["datasets/writer/script"] = Repo("writer", files={"script.py": b"raise SystemExit"})
    return hub


@pytest.fixture(scope="module")
def environment(hub: Hub, tmp_path_factory: pytest.TempPathFactory):
    with serving(hub.app()) as address:
        more = {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path_factory.mktemp("hf"))}
        yield {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | more


VERBS = """
import contextlib, io, json, sys
from ft_core.__main__ import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(["--json", "data", *words.split()])
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def door(environment: dict, home: Path, *verbs: str) -> list:
    """The results of verbs, one after the other in one child; what a refused one says."""
    command = [sys.executable, "-c", VERBS, json.dumps(verbs)]
    answer = subprocess.run(command, env={**environment, "FT_HOME": str(home)}, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    said = [json.loads(line) for line in answer.stdout.splitlines()]
    assert not any("Traceback" in err for _, _, err in said)
    return [json.loads(out.splitlines()[-1]) if status == 0 else err for status, out, err in said]


def test_rows_of_the_hub_by_the_front_door(environment: dict, tmp_path: Path) -> None:
    fjord = "hub:writer/fjord"
    seen, first, drawn, again, other, ours, *refused = door(
        environment,
        tmp_path,
        f"look {fjord}",
        f"import {fjord} --rows 3",
        f"import {fjord} --rows 20 --random --seed 7",
        f"import {fjord} --rows 20 --random --seed 7",
        f"import {fjord} --config other",
        "search Q --limit 100",
        f"look {fjord} --split dev",
        f"import {fjord} --config none",
        "look hub:writer/gated",
        "look hub:writer/none",
        "look hub:reader/own",
        "import hub:writer/script",
        f"import {fjord} --map prompt=Frage",
        "look rows.csv --rows 3",
    )
    about = {"licence": "cc-by-4.0", "gated": False, "config": "default", "split": "train"}
    assert about.items() <= seen["hub"].items()
    assert seen["hub"]["configs"] == {"default": ["train", "test"], "other": []}
    assert seen["columns"] == ["question", "answer", "more"] and len(seen["preview"]) == 5
    assert [first["added"], drawn["added"], again["added"], other["added"]] == [3, 20, 20, 1]
    origins = [row["origin"] for row in ours["rows"]]
    said = [row["messages"][0]["content"] for row in ours["rows"]]
    assert origins[0] == "hub:writer/fjord (default, train; licence cc-by-4.0) row 1" and said[:3] == [
        "Q0",
        "Q1",
        "Q2",
    ]
    assert origins[3] == "hub:writer/fjord (default, train, random with seed 7; licence cc-by-4.0) row 1"
    assert said[3:23] == said[23:43] and len(set(said[3:23])) == 20 and max(int(q[1:]) for q in said[3:23]) > 100
    for text, says in zip(
        refused,
        (
            "has no split 'dev'\nhint: It has train, test.",
            "has no configuration 'none'\nhint: It has default, other.",
            "the dataset writer/gated is gated: its owner wants to be asked first\nhint: Ask for access on http",
            "there is no dataset 'writer/none'",
            "there is no dataset 'reader/own'",
            "is a program that would have to be run here, which is not done",
            "has no column 'Frage'",
            "are for datasets of the Hub, not for rows.csv",
        ),
        strict=True,
    ):
        assert text.startswith("error: ") and says in text, text


def test_a_private_dataset_with_a_token_as_a_job(environment: dict, project: Project, monkeypatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    job = take.start(project, HubRows("reader/own", split="train", rows=30), token=READER)
    seen = jobs.wait(job)
    assert (seen.error, seen.result["added"]) == ("", 30)
    found = events.read(job.events)[0]
    assert isinstance(found[-1], Finished)
    assert not [p for p in job.path.rglob("*") if p.is_file() and READER.encode() in p.read_bytes()]


def test_a_hub_that_does_not_answer(environment: dict, tmp_path: Path) -> None:
    nowhere = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}
    (said,) = door(nowhere, tmp_path, "look hub:writer/fjord")
    assert "error: the dataset writer/fjord cannot be had: the Hugging Face Hub cannot be reached\nhint: " in said
