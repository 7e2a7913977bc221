"""What several tests of the core stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from ft_core.data.store import Store
from ft_core.render import Renderer
from tests.stand_ins import serving
from tests.stand_ins.hub import Hub


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "data.sqlite") as store:
        yield store


@pytest.fixture(scope="session")
def renderer(builtin: Path) -> Renderer:
    return Renderer.of(builtin)


@pytest.fixture
def memory() -> Hub:
    """What the Hub at `endpoint` remembers."""
    return Hub()


@pytest.fixture
def endpoint(memory: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Hub that the real client may talk to."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with serving(memory.app()) as address:
        yield address
