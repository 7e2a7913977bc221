"""Whether the Hub hands a base model out, asked before a run with the real client."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from ft_core import recipe
from ft_core.errors import FTError
from ft_core.recipe import ModelRecipe
from ft_core.train import access, download, preflight, sft, start
from ft_core.workspace import Project, Workspace
from tests.core.trainings import QUICK, lighthouse
from tests.stand_ins.hub import READER, WRITER, Hub, Repo


@pytest.fixture
def hub(memory: Hub, endpoint: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """shop/open and shop/gated, of which the second lets nobody in yet; a cache that has neither."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(access, "_answers", {})
    files = {file.name: file.read_bytes() for file in tiny_model.iterdir()}
    memory.repos = {
        "shop/open": Repo("shop", files=dict(files)),
        "shop/gated": Repo("shop", gated=True, files=dict(files)),
    }
    return memory


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return lighthouse(workspace)


def wanted(base: str, revision: str = "") -> recipe.Recipe:
    return recipe.Recipe(model=ModelRecipe(base, revision), train=QUICK)


def finding(project: Project, base: str, token: str = "", revision: str = "") -> tuple[str, str, str] | None:
    found = preflight.preflight(project, wanted(base, revision), token=token).findings
    return next(((f.kind, f.text, f.hint) for f in found if f.name in ("model", "hub")), None)


def test_a_gated_model_is_found_before_the_run(project, hub, endpoint, monkeypatch) -> None:
    kind, text, hint = finding(project, "shop/gated", READER)
    assert kind == "blocking" and "shop/gated is gated" in text and f"{endpoint}/shop/gated" in hint
    with pytest.raises(FTError, match="shop/gated is gated"):
        start.start(project, wanted("shop/gated"), secrets={"HF_TOKEN": READER})
    assert project.jobs() == []
    hub.repos["shop/gated"].let_in.add("reader")
    assert finding(project, "shop/gated", WRITER)[0] == "blocking"  # another person is asked for himself
    monkeypatch.setattr(access, "_answers", {})  # what the Hub refused holds for some seconds
    assert finding(project, "shop/gated", READER) is None
    assert finding(project, "shop/open") is None


def test_a_page_may_ask_as_often_as_it_likes(project, hub) -> None:
    for _ in range(3):
        assert access.of(ModelRecipe("shop/gated"), project.path, READER).refusal
        assert access.of(ModelRecipe("shop/open"), project.path) == access.Access()
    asked = [path for _, path, _ in hub.requests]
    assert asked == ["/api/models/shop/gated/revision/main", "/shop/gated/resolve/main/config.json",
                     "/api/models/shop/open/revision/main"]  # fmt: skip


def test_what_is_not_there_is_said_so(project, hub) -> None:
    assert "no model 'shop/nothing'" in finding(project, "shop/nothing")[1]
    hub.repos["shop/open"].private = True
    assert "no model 'shop/open'" in finding(project, "shop/open")[1]
    assert finding(project, "two/many/parts")[0] == "blocking"
    assert access.of(ModelRecipe("built-in"), project.path) == access.Access()


def test_without_a_network_what_is_here_whole_will_do(project, hub, monkeypatch) -> None:
    huggingface_hub.snapshot_download("shop/open", cache_dir=huggingface_hub.constants.HF_HUB_CACHE)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(access, "_answers", {})
    kind, text, _ = finding(project, "shop/open")
    assert kind == "advisory" and "cannot be reached" in text
    kind, text, _ = finding(project, "shop/gated")
    assert kind == "blocking" and "not on this machine and the Hugging Face Hub cannot be reached" in text


def test_a_gated_model_that_is_here_whole_is_taken_without_asking(project, hub) -> None:
    hub.repos["shop/gated"].let_in.add("reader")
    cache = huggingface_hub.constants.HF_HUB_CACHE
    huggingface_hub.snapshot_download("shop/gated", cache_dir=cache, token=READER)
    hub.repos["shop/gated"].let_in.clear()
    assert finding(project, "shop/gated", READER) is None


def test_a_training_fetches_its_base_as_the_person_who_started_it(project, hub, monkeypatch) -> None:
    hub.repos["shop/gated"].let_in.add("reader")
    monkeypatch.setattr(sft, "train_slice", lambda job, deadline: iter(()))
    job = start.create(project, wanted("shop/gated"), token=READER)
    assert download.here("shop/gated", "") is None  # only what the page needs of it
    (said,) = sft.run(job, {"HF_TOKEN": READER})
    assert said.what == "downloading shop/gated" and download.here("shop/gated", "")
    assert list(sft.run(job, {"HF_TOKEN": READER})) == []
    assert [file for file in job.path.rglob("*") if file.is_file() and READER.encode() in file.read_bytes()] == []
