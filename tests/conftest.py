"""Fixtures for every test: a home of its own, and real models, made once a session."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

for name in ("HF_TOKEN", "OPENAI_API_KEY", "OLLAMA_HOST", "SPACE_ID", "FT_HOME"):
    os.environ.pop(name, None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from ft_core.workspace import Workspace  # noqa: E402

hypothesis.settings.register_profile("no clock", deadline=None)  # a busy machine makes no test fail
hypothesis.settings.load_profile("no clock")


@pytest.fixture(scope="session")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, converted once a session by the code that does it for people."""
    from ft_core.train.builtin import ensure_builtin

    return ensure_builtin(Workspace.at(tmp_path_factory.mktemp("builtin")), lambda share, what: None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh FT_HOME."""
    monkeypatch.setenv("FT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def workspace(home: Path) -> Workspace:
    return Workspace.at(home)


@pytest.fixture
def with_builtin(workspace: Workspace, builtin: Path) -> Workspace:
    """A fresh workspace in which the built-in model is already converted."""
    workspace.builtin_model.symlink_to(builtin, target_is_directory=True)
    return workspace


@pytest.fixture(scope="session")
def tiny_model(builtin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of random weights under the built-in model's tokenizer: everything real but the wisdom."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    torch.manual_seed(0)
    source = LlamaConfig.from_pretrained(builtin)
    config = LlamaConfig(
        vocab_size=source.vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=source.bos_token_id,
        eos_token_id=source.eos_token_id,
        pad_token_id=source.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for file in builtin.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "chat_template")):
            shutil.copy(file, folder / file.name)
    return folder
