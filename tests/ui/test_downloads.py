"""Rows for the browser: every shape as every kind of file, whole, and nothing left behind."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from ft_core import recipe
from ft_core.conversation import Conversation, Message
from ft_core.data import formats, split
from ft_core.data.store import Store
from ft_core.workspace import Workspace
from ui.downloads import routes
from ui.session import House


@pytest.fixture
def client(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Of a project of 20 rows, 4 held out."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with Store(workspace.project("shop", create=True).data) as store:
        store.add(Conversation((Message("user", f"q {i}"), Message("assistant", f"=a {i}"))) for i in range(20))
        split.assign(store, 0.2, 0)
    yield TestClient(Starlette(routes=routes(House(workspace.home, on_space=False))))
    assert list((tmp_path / "scratch").iterdir()) == []


def rows(client: TestClient, name: str, **options: str):
    return client.get("/gradio_api/ft/rows", params={"project": "shop", "as": name, **options})


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "zip"])
@pytest.mark.parametrize("shape", ["messages", "sharegpt", "alpaca", "prompt-completion", "contexts"])
def test_every_shape_as_every_kind_of_file(client, shape, kind) -> None:
    answer = rows(client, f"{shape}.{kind}")
    assert answer.status_code == 200 and len(answer.content) > 100
    assert f'filename="shop-{shape}.{kind}"' in answer.headers["content-disposition"]


def test_one_side_alone(client) -> None:
    found = [rows(client, "prompt-completion.jsonl", split=side).text.splitlines() for side in ("train", "heldout")]
    assert list(map(len, found)) == [16, 4]
    assert set(json.loads(found[0][0])) == {"prompt", "completion"}


def test_the_zip_holds_a_folder_that_datasets_loads(client, tmp_path) -> None:
    (tmp_path / "rows.zip").write_bytes(rows(client, "messages.zip").content)
    with zipfile.ZipFile(tmp_path / "rows.zip") as archive:
        archive.extractall(tmp_path)
    found = datasets.load_from_disk(str(tmp_path / "messages"))
    assert {name: part.num_rows for name, part in found.items()} == {"train": 16, "test": 4}
    assert len(list(formats.read(tmp_path / "rows.zip"))) == 20


@pytest.mark.parametrize(
    ("name", "side", "said"),
    [
        ("messages.exe", "", "rows are not written as 'messages.exe'"),
        ("../messages.jsonl", "", "rows are not written as"),
        ("", "", "rows are not written as ''"),
        ("messages.jsonl", "rejected", "rows are not written as"),
        ("preference.jsonl", "", "none of the 20 rows has a better and a worse answer"),
        ("text.csv", "", "row 1 cannot be written as text"),
    ],
)
def test_what_cannot_be_is_said(client, name, side, said) -> None:
    answer = rows(client, name, split=side)
    assert answer.status_code == 404 and said in answer.text


def test_the_recipe_is_a_file_that_runs_elsewhere(client) -> None:
    answer = client.get("/gradio_api/ft/recipe", params={"project": "shop"})
    assert recipe.parse(answer.text) == recipe.preset("Quick look")
    assert 'filename="recipe.yaml"' in answer.headers["content-disposition"]
    assert client.get("/gradio_api/ft/recipe", params={"project": "../local"}).status_code == 404


def test_the_report_of_a_run_and_no_other_file(client, workspace: Workspace) -> None:
    job = workspace.project("shop").new_job()
    asked = {"project": "shop", "job": job.id}
    assert "no report" in client.get("/gradio_api/ft/report", params=asked).text
    (job.path / "report").mkdir()
    (job.path / "report" / "report.md").write_text("# Training\n")
    assert client.get("/gradio_api/ft/report", params=asked).text == "# Training\n"
    assert client.get("/gradio_api/ft/report", params={**asked, "job": "../jobs/x"}).status_code == 404
