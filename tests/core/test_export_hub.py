"""Pushing with the real huggingface_hub client to a Hub in memory."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, hf_hub_download

from ft_core import jobs
from ft_core.errors import FTError
from ft_core.events import Note, State
from ft_core.export import card, hub, start
from ft_core.export.gguf import About, write_f16
from ft_core.export.start import Wanted
from ft_core.export.trained import Trained
from ft_core.workspace import Job
from tests.core.exporting import training
from tests.stand_ins.hub import READER, WRITER, Hub, Repo


@pytest.fixture(scope="module")
def job(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    return training(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture(scope="module")
def trained(job: Job) -> Trained:
    return Trained.of(job, lambda share, what: None)


@pytest.fixture(scope="module")
def tiny_gguf(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "fjord-F16.gguf"
    list(write_f16(tiny_model, path, About("fjord", "", "")))
    return path


def pushed(made: Path, push: str, trained: Trained, token: str, endpoint: str, repo: str = "") -> tuple[list, dict]:
    wanted = Wanted(trained.job.id, ("hub",), "fjord", push=push, repo=repo)
    links: dict[str, str] = {}
    said = list(hub.push(wanted, trained, made, token, links, endpoint))
    return said, links


@pytest.fixture
def adapter(trained: Trained, tmp_path: Path) -> Path:
    folder = tmp_path / "fjord-lora"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(
        (trained.job.adapter / "adapter_model.safetensors").read_bytes()
    )
    card.write(folder, card.adapter(trained, "fjord"))
    return folder


def test_an_adapter_arrives_whole_and_private(
    adapter: Path, trained: Trained, memory: Hub, endpoint: str, tmp_path: Path
) -> None:
    said, links = pushed(adapter, "adapter", trained, WRITER, endpoint)
    repo = memory.repos["writer/fjord-lora"]
    assert repo.private is True
    assert repo.files["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    assert "writer/fjord-lora" in repo.files["README.md"].decode()
    assert "PATH_OR_REPO" not in repo.files["README.md"].decode()
    assert links == {"repo": f"{endpoint}/writer/fjord-lora"}
    assert any(isinstance(s, Note) and "private" in s.text for s in said)
    copy = hf_hub_download(
        "writer/fjord-lora", "adapter_model.safetensors", endpoint=endpoint, token=WRITER, cache_dir=tmp_path / "cache"
    )
    assert Path(copy).read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()
    assert not list(adapter.parent.glob(".push-*"))


def test_a_gguf_goes_where_ollama_looks_for_it(tiny_gguf: Path, trained: Trained, memory: Hub, endpoint: str) -> None:
    pushed(tiny_gguf, "gguf:F16", trained, WRITER, endpoint, repo="fjord-GGUF")
    repo = memory.repos["writer/fjord-GGUF"]
    assert repo.files["fjord-F16.gguf"] == tiny_gguf.read_bytes()
    text = repo.files["README.md"].decode()
    assert ModelCard(text).data.library_name == "gguf"
    assert "ollama run hf.co/writer/fjord-GGUF:F16" in text


def test_a_second_push_replaces_the_first(adapter: Path, trained: Trained, memory: Hub, endpoint: str) -> None:
    pushed(adapter, "adapter", trained, WRITER, endpoint)
    (adapter / "adapter_model.safetensors").write_bytes(b"other weights")
    pushed(adapter, "adapter", trained, WRITER, endpoint)
    assert memory.repos["writer/fjord-lora"].files["adapter_model.safetensors"] == b"other weights"


def test_bytes_that_change_on_the_way_are_noticed(
    adapter: Path, trained: Trained, memory: Hub, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = HfApi.get_paths_info

    def damaged(api: HfApi, repo: str, paths: list[str], **options: str):
        memory.repos[repo].files["adapter_model.safetensors"] = b"damaged"
        return arrived(api, repo, paths, **options)

    monkeypatch.setattr(HfApi, "get_paths_info", damaged)
    wanted = Wanted(trained.job.id, ("hub",), "fjord")
    pushing = hub.push(wanted, trained, adapter, WRITER, {}, endpoint)
    with pytest.raises(StopIteration) as end:
        while True:
            next(pushing)
    assert [(c.kind, c.passed) for c in end.value.value] == [("gate", False)]


@pytest.mark.parametrize(
    ("token", "said"), [("hf_unknown_secret", "does not know this token"), (READER, "the token may not do this")]
)
def test_a_refused_token_is_one_sentence_without_it(
    adapter: Path, trained: Trained, memory: Hub, endpoint: str, token: str, said: str
) -> None:
    with pytest.raises(FTError, match=said) as caught:
        pushed(adapter, "adapter", trained, token, endpoint)
    assert token not in caught.value.message + caught.value.hint + repr(caught.value)
    assert "\n" not in caught.value.message and caught.value.hint
    assert memory.repos == {}


def test_somebody_elses_namespace_is_refused(adapter: Path, trained: Trained, endpoint: str) -> None:
    with pytest.raises(FTError, match="the token may not do this"):
        pushed(adapter, "adapter", trained, WRITER, endpoint, repo="somebody/fjord")


def test_a_public_repository_is_left_alone(adapter: Path, trained: Trained, memory: Hub, endpoint: str) -> None:
    memory.repos["writer/fjord-lora"] = Repo("writer", private=False)
    with pytest.raises(FTError, match="writer/fjord-lora is public"):
        pushed(adapter, "adapter", trained, WRITER, endpoint)
    assert set(memory.repos["writer/fjord-lora"].files) == {".gitattributes"}


def test_a_hub_that_is_down_is_one_sentence(adapter: Path, trained: Trained, endpoint: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(FTError, match=f"Hub at {nobody} does not answer"):
        pushed(adapter, "adapter", trained, WRITER, nobody)


def test_the_child_pushes_and_the_token_is_nowhere(
    job: Job, memory: Hub, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(name, value)
    export = start.start(job.project, job, ["hub"], name="fjord", token=WRITER)
    view = jobs.wait(export)
    assert view.state is State.FINISHED, (view.error, export.log.read_text()[-2000:])
    assert view.result["verified"] and view.result["repo"] == f"{endpoint}/writer/fjord-lora"
    assert "adapter_config.json" in memory.repos["writer/fjord-lora"].files
    for file in export.path.rglob("*"):
        assert file.is_dir() or WRITER.encode() not in file.read_bytes(), file


def test_the_licence_is_the_bases(trained: Trained) -> None:
    from dataclasses import replace

    of_a_base = replace(trained, base_id="someone/base", licence="llama3.2")
    data = ModelCard(card.gguf(of_a_base, "fjord", "me/fjord-GGUF", "Q8_0")).data
    assert (data.license, data.base_model, data.base_model_relation) == ("llama3.2", "someone/base", "quantized")
    assert ModelCard(card.adapter(of_a_base, "fjord")).data.base_model_relation == "adapter"
