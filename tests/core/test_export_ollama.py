"""Creating a model with the real ollama client in an Ollama that remembers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import ollama as client
import pytest

from ft_core.errors import FTError
from ft_core.events import Note
from ft_core.export import ollama
from ft_core.export.modelfile import Modelfile
from ft_core.export.start import Wanted
from ft_core.export.trained import Trained
from tests.core.exporting import SYSTEM, training
from tests.stand_ins import serving
from tests.stand_ins.ollama import Ollama


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained.of(training(tmp_path_factory.mktemp("home"), tiny_model), lambda share, what: None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "Fjord-Q4_K_M.gguf"
    path.write_bytes(b"GGUF and then weights" * 1000)
    return path


@pytest.fixture
def memory() -> Ollama:
    return Ollama()


@pytest.fixture
def host(memory: Ollama) -> Iterator[str]:
    with serving(memory.app()) as address:
        yield address


def created(trained: Trained, model: Path, host: str) -> tuple[list, dict]:
    links: dict[str, str] = {}
    wanted = Wanted(trained.job.id, ("ollama",), "Fjord", host=host)
    return list(ollama.create(wanted, Modelfile.of(trained, model.name), model, links)), links


def nobody() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_it_arrives_with_template_system_and_stops(trained: Trained, model: Path, host: str, memory: Ollama) -> None:
    said, links = created(trained, model, host)
    assert links == {"ollama": "fjord"}
    assert any(isinstance(s, Note) and "ollama run fjord" in s.text for s in said)
    found = memory.models["fjord:latest"]
    assert [memory.blobs[d] for d in found["files"].values()] == [model.read_bytes()]
    assert found["system"] == SYSTEM
    assert '{{ if eq .Role "user" }}' in found["template"] or '{{ else if eq .Role "user" }}' in found["template"]
    assert found["parameters"]["stop"] == ["<|im_end|>"]
    assert "<|im_start|>assistant" in client.Client(host).show("fjord").template


def test_an_error_inside_the_stream_is_an_error(trained: Trained, model: Path, host: str, memory: Ollama) -> None:
    model.write_bytes(b"not what it says")
    with pytest.raises(FTError, match="refuses the model: unsupported content type") as caught:
        created(trained, model, host)
    assert str(model.parent) in caught.value.hint
    assert memory.models == {}


def test_a_named_host_that_is_down_is_an_error(trained: Trained, model: Path) -> None:
    with pytest.raises(FTError, match="no Ollama answers at http://127.0.0.1") as caught:
        created(trained, model, nobody())
    assert "ollama create fjord -f Modelfile" in caught.value.hint


def test_without_a_host_the_commands_are_told(trained: Trained, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", nobody())
    said, links = created(trained, model, "")
    assert links == {}
    assert [s.text for s in said] == [f"In {model.parent}: ollama create fjord -f Modelfile && ollama run fjord"]


def test_the_environments_host_is_found(
    trained: Trained, model: Path, host: str, memory: Ollama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    created(trained, model, "")
    assert "fjord:latest" in memory.models


def test_a_space_tries_no_host(
    trained: Trained, model: Path, host: str, memory: Ollama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    monkeypatch.setenv("SPACE_ID", "someone/space")
    said, links = created(trained, model, "")
    assert links == {} and memory.requests == []
    assert [s.text for s in said] == ["Download the zip, then: ollama create fjord -f Modelfile && ollama run fjord"]


def test_another_server_is_not_taken_for_an_ollama(trained: Trained, model: Path) -> None:
    import fastapi

    with serving(fastapi.FastAPI()) as other, pytest.raises(FTError, match="no Ollama answers"):
        created(trained, model, other)
