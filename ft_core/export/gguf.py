"""A Hugging Face folder as a GGUF of 16 bits: no compiler, no checkout of llama.cpp.

The names, the order of the tensors and their layout are those of llama.cpp's own converter (`make oracle` compares
the bytes). Architectures are declared one by one: what is not in the table is refused, not guessed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import safe_open

from ..errors import FTError
from ..render import Renderer
from .turns import Ends, adds_bos


@dataclass(frozen=True)
class Architecture:
    gguf: gguf.MODEL_ARCH
    interleaved: bool
    """Whether llama.cpp wants the rows of q and k in the order of rotary pairs, as Meta's first weights had them."""


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(gguf.MODEL_ARCH.LLAMA, interleaved=True),  # SmolLM2 is one of these
    "MistralForCausalLM": Architecture(gguf.MODEL_ARCH.LLAMA, interleaved=True),
    "SmolLM3ForCausalLM": Architecture(gguf.MODEL_ARCH.SMOLLM3, interleaved=True),
    "Qwen2ForCausalLM": Architecture(gguf.MODEL_ARCH.QWEN2, interleaved=False),
    "Qwen3ForCausalLM": Architecture(gguf.MODEL_ARCH.QWEN3, interleaved=False),
}

_PROBE = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n"
    "🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 "
    "កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български "
    "''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, "
    "'D you like some tea? We'Ve a'lL"
)
_PRE_TOKENIZERS = {
    "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249": "smollm",
    "0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5": "llama-bpe",
    "e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea": "qwen2",
    "d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c": "qwen2",
    "63b97e4253352e6f357cc59ea5b583e3a680eaeaf2632188c2b952de2588485e": "tekken",
}
"""How llama.cpp must cut text before it looks for tokens, by the sha256 of what the tokenizer makes of _PROBE.
Text and sums are llama.cpp's (convert_hf_to_gguf.py)."""


@dataclass(frozen=True)
class About:
    """What a GGUF says about itself."""

    name: str
    base_id: str
    """Of the model it was trained from, on the Hub; '' when it has no id."""
    licence: str
    """As the Hub names licences, '' when unknown."""


def write_f16(folder: Path, path: Path, about: About) -> Iterator[float]:
    """Writes `folder` (config.json, safetensors, tokenizer.json) to `path`. Yields the share done, by tensors.

    Matrices are float16, all that has one dimension float32. One tensor is in memory at a time. Raises FTError for an
    architecture, a tokenizer or a rope that is not declared here, and for a weight too large for 16 bits.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = _architecture(config)
    tensors = list(_tensors(folder, config, architecture))
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture.gguf])
    _add_metadata(writer, about, sum(t.parameters for t in tensors))
    _add_hyperparameters(writer, config, architecture)
    _add_tokenizer(writer, folder, config["vocab_size"])
    for tensor in tensors:
        size = 2 if tensor.dtype == np.float16 else 4
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(tensor.dtype), math.prod(tensor.shape) * size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for i, tensor in enumerate(tensors):
        data = tensor.load()
        if not np.isfinite(data).all():
            raise FTError(
                f"the weight {tensor.name} does not fit into 16 bits", "Train again with a lower learning rate."
            )
        writer.write_tensor_data(data)
        yield (i + 1) / len(tensors)
    writer.close()


def _architecture(config: dict[str, Any]) -> Architecture:
    name = (config.get("architectures") or ["?"])[0]
    known = ARCHITECTURES.get(name)
    if known is None:
        raise FTError(
            f"a GGUF of {name} cannot be written here yet",
            f"It works for {', '.join(a.removesuffix('ForCausalLM') for a in ARCHITECTURES)}. "
            "Export merged, and convert that with llama.cpp's own tools.",
        )
    if name == "SmolLM3ForCausalLM" and config.get("no_rope_layer_interval", 4) != 4:
        raise FTError("this SmolLM3 leaves rope out elsewhere than every fourth layer, which llama.cpp does not know")
    return known


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    parameters: int
    dtype: type
    load: Callable[[], np.ndarray]


def _tensors(folder: Path, config: dict[str, Any], architecture: Architecture) -> Iterator[_Tensor]:
    """In the order of llama.cpp's converter: extras first, then as the files have them."""
    names = gguf.get_tensor_name_map(architecture.gguf, config["num_hidden_layers"])
    factors = _rope_factors(config)
    if factors is not None:
        yield _Tensor("rope_freqs.weight", factors.shape, factors.size, np.float32, lambda: factors)
    heads = config["num_attention_heads"]
    heads_of = {"q_proj": heads, "k_proj": config.get("num_key_value_heads", heads)}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as source:
            for key in source.keys():
                name = names.get_name(key, try_suffixes=(".weight", ".bias"))
                if name is None:
                    raise FTError(f"the weight {key} has no place in a GGUF of this architecture")
                shape = tuple(source.get_slice(key).get_shape())
                flat = len(shape) < 2 or name.endswith("_norm.weight")
                dtype = np.float32 if flat else np.float16
                projection = key.split(".")[-2]
                pairs = heads_of.get(projection, 0) if architecture.interleaved and key.endswith(".weight") else 0
                yield _Tensor(name, shape, math.prod(shape), dtype, _loader(file, key, dtype, pairs))


def _loader(file: Path, key: str, dtype: type, heads: int) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        with safe_open(file, "pt") as source:
            tensor = source.get_tensor(key).to(torch.float32)
        if heads:  # halves of each head to pairs
            rows = tensor.shape[0]
            tensor = tensor.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(tensor.shape)
        with np.errstate(over="ignore"):  # looked at afterwards
            return tensor.numpy().astype(dtype)

    return load


def _add_metadata(writer: gguf.GGUFWriter, about: About, parameters: int) -> None:
    writer.add_type("model")
    writer.add_name(about.name)
    writer.add_size_label(gguf.size_label(parameters, parameters, 0, 0))
    if about.licence:
        writer.add_license(about.licence)
    if about.base_id:
        organization, _, name = about.base_id.rpartition("/")
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, name)
        if organization:
            writer.add_base_model_organization(0, organization)
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{about.base_id}")


def _add_hyperparameters(writer: gguf.GGUFWriter, config: dict[str, Any], architecture: Architecture) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if config.get("head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    _add_rope(writer, config)
    if architecture.interleaved:
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(head_dim)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """Rope as transformers 5 writes it, or as 4 did."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    return {**rope, "rope_theta": theta, "rope_type": rope.get("rope_type", rope.get("type", "default"))}


def _add_rope(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    rope = _rope(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    match rope["rope_type"]:
        case "default" | "llama3":  # llama3 is a tensor of its own
            return
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        case "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope["factor"])
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        case other:
            raise FTError(f"a GGUF with rope of the kind {other!r} cannot be written here yet")


def _rope_factors(config: dict[str, Any]) -> np.ndarray | None:
    """Llama 3's stretched rope: what each frequency is divided by, float32, shape (head_dim / 2,)."""
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    frequencies = 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]

    def divisor(wavelength: float) -> float:
        if wavelength < context / high:
            return 1.0
        if wavelength > context / low:
            return factor
        smooth = (context / wavelength - low) / (high - low)
        return 1 / ((1 - smooth) / factor + smooth)

    return torch.tensor([divisor(2 * math.pi / f) for f in frequencies], dtype=torch.float32).numpy()


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, vocabulary: int) -> None:
    renderer = Renderer.of(folder)
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre(_pre_tokenizer(renderer, spec))
    tokens, kinds = _vocabulary(spec, vocabulary)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=vocabulary)
    special.add_special_token["bos"] = adds_bos(renderer)
    special.chat_template = _plain_template(renderer.template)
    end_id = Ends.of(renderer).end_id
    if end_id is not None and end_id != special.special_token_ids.get("eos"):
        special.special_token_ids["eot"] = end_id
    special.add_to_gguf(writer, quiet=True)


def _pre_tokenizer(renderer: Renderer, spec: dict[str, Any]) -> str:
    ids = renderer.tokenizer.encode(_PROBE).ids
    found = _PRE_TOKENIZERS.get(hashlib.sha256(str(ids).encode()).hexdigest())
    if spec["model"]["type"] != "BPE" or found is None:
        raise FTError(
            "llama.cpp may cut text into other tokens than this model's tokenizer does, so no GGUF is written",
            "The tokenizers of SmolLM2, SmolLM3, Llama 3, Qwen 2.5, Qwen 3 and Mistral Nemo are known here. "
            "Export merged, and convert that with llama.cpp's own tools.",
        )
    return found


def _vocabulary(spec: dict[str, Any], size: int) -> tuple[list[str], list[gguf.TokenType]]:
    """All `size` tokens in the order of their ids; ids that nothing bears are filled up."""
    plain = {id: token for token, id in spec["model"]["vocab"].items()}
    added = {token["id"]: token for token in spec["added_tokens"]}
    tokens, kinds = [], []
    for id in range(size):
        if id in added:
            text = added[id]["content"]
            control = added[id]["special"] or (text.startswith("<|") and text.endswith("|>"))
            kinds.append(gguf.TokenType.CONTROL if control else gguf.TokenType.USER_DEFINED)
        elif id in plain:
            text = plain[id]
            kinds.append(gguf.TokenType.NORMAL)
        else:
            text = f"[PAD{id}]"
            kinds.append(gguf.TokenType.UNUSED)
        tokens.append(text)
    return tokens, kinds


def _plain_template(template: str) -> str:
    """Without the marks of what the assistant says: training wants them, and not every runtime knows them.

    Their own white space control would be lost with them, so it moves to an empty comment in their place.
    """
    return re.sub(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}", r"{#\1 \2#}", template)
