"""The GGUF writer, one declared architecture after the other: small random models, answered by llama.cpp itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import gguf
import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from ft_core.errors import FTError
from ft_core.export.gguf import About, _plain_template, write_f16
from ft_core.export.quantize import quantize
from ft_core.generate.embedded import serve

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "vocab_size": 49152,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=True)),
    "llama-3-rope": (LlamaForCausalLM, LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE)),
    "mistral": (MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=None)),
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config(**SHAPE)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=32)),
}
ABOUT = About("fjord", "someone/base", "apache-2.0")


@dataclass(frozen=True)
class Small:
    folder: Path
    model: PreTrainedModel


def small(name: str, folder: Path, tokenizer: Path) -> Small:
    kind, config = MODELS[name]
    torch.manual_seed(3)
    model = kind(config).to(torch.bfloat16)
    for parameter in model.parameters():  # far from each other, so that a swapped row shows
        torch.nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=0.1)
    model.save_pretrained(folder)
    for file in tokenizer.iterdir():
        if file.name.startswith(("tokenizer", "chat_template")):
            shutil.copy(file, folder / file.name)
    return Small(folder, model.float().eval())


def likeliest(path: Path, ids: list[int]) -> dict[int, float]:
    with serve(path) as url, httpx.Client(base_url=url.removesuffix("/v1"), timeout=120) as client:
        body = {"prompt": ids, "n_predict": 1, "n_probs": 50, "temperature": 0}
        said = client.post("/completion", json=body).json()
    return {c["id"]: c["logprob"] for c in said["completion_probabilities"][0]["top_logprobs"]}


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_says_what_transformers_says(name: str, tmp_path: Path, tiny_model: Path) -> None:
    made = small(name, tmp_path / "model", tiny_model)
    path = tmp_path / "model.gguf"
    list(write_f16(made.folder, path, ABOUT))
    ids = list(range(100, 220))  # long enough for rope to matter
    with torch.inference_mode():
        expected = torch.log_softmax(made.model(torch.tensor([ids])).logits[0, -1], -1)
    found = likeliest(path, ids)
    assert max(abs(expected[id].item() - said) for id, said in found.items()) < 0.1
    assert int(expected.argmax()) in list(found)[:2]


@pytest.fixture(scope="module")
def tiny_gguf(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "f16.gguf"
    shares = list(write_f16(tiny_model, path, ABOUT))
    assert shares[-1] == 1.0 and shares == sorted(shares)
    return path


@pytest.fixture(scope="module")
def tiny_reader(tiny_gguf: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(tiny_gguf)


def test_what_the_file_says_about_itself(tiny_reader: gguf.GGUFReader, tiny_model: Path) -> None:
    facts = {k: f.contents() for k, f in tiny_reader.fields.items()}
    assert facts["general.name"] == "fjord"
    assert facts["general.license"] == "apache-2.0"
    assert facts["general.base_model.0.repo_url"] == "https://huggingface.co/someone/base"
    assert facts["tokenizer.ggml.pre"] == "smollm"
    assert (facts["tokenizer.ggml.bos_token_id"], facts["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert facts["tokenizer.ggml.add_bos_token"] is False
    assert facts["tokenizer.chat_template"] == (tiny_model / "chat_template.jinja").read_text()
    assert len(facts["tokenizer.ggml.tokens"]) == 49152
    assert str(tiny_model.parent) not in str(facts)


def test_a_turn_that_ends_otherwise_than_a_text(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|endoftext|>"}))
    list(write_f16(folder, tmp_path / "model.gguf", ABOUT))
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 0
    assert fields["tokenizer.ggml.eot_token_id"].contents() == 2


def test_training_marks_leave_the_template() -> None:
    assert _plain_template("a{% generation %}b{% endgeneration %}c") == "a{# #}b{# #}c"
    assert _plain_template("a{%- generation -%}b") == "a{#- -#}b"


def test_an_unknown_architecture_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["MambaForCausalLM"]}))
    with pytest.raises(FTError, match="MambaForCausalLM cannot be written"):
        list(write_f16(folder, tmp_path / "model.gguf", ABOUT))


def test_an_unknown_tokenizer_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(FTError, match="other tokens"):
        list(write_f16(folder, tmp_path / "model.gguf", ABOUT))


def test_a_weight_beyond_16_bits_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(FTError, match="blk.0.ffn_up.weight does not fit"):
        list(write_f16(folder, tmp_path / "model.gguf", ABOUT))


@pytest.mark.parametrize("type_", ["Q8_0", "Q4_K_M"])
def test_quantised_weights_are_near_and_smaller(
    type_: str, tmp_path: Path, tiny_gguf: Path, tiny_reader: gguf.GGUFReader
) -> None:
    path = tmp_path / "small.gguf"
    assert list(quantize(tiny_gguf, path, type_))[-1] == 1.0
    assert path.stat().st_size < 0.65 * tiny_gguf.stat().st_size
    before, after = ({t.name: t for t in r.tensors} for r in (tiny_reader, gguf.GGUFReader(path)))
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        wanted = gguf.quants.dequantize(before[name].data, before[name].tensor_type)
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.abs(found - wanted).max() <= 0.1 * np.abs(wanted).max(), name
