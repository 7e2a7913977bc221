"""Base models of a minute's size: two layers of random weights, and a tokenizer of bytes without a chat template."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

END, END_ID = "<|endoftext|>", 256


def byte_tokenizer(folder: Path, **special: str) -> Path:
    """As GPT-2 and Pythia have it before its merges: one token a byte, END behind them."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END])
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def pythia(folder: Path, context: int = 512) -> Path:
    config = GPTNeoXConfig(
        vocab_size=264, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=context, bos_token_id=END_ID, eos_token_id=END_ID,
    )  # fmt: skip
    return _saved(GPTNeoXForCausalLM, config, folder)


def gpt2(folder: Path) -> Path:
    config = GPT2Config(
        vocab_size=257, n_embd=32, n_layer=2, n_head=2, n_positions=512, bos_token_id=END_ID, eos_token_id=END_ID
    )
    return _saved(GPT2LMHeadModel, config, folder)


def llama(folder: Path) -> Path:
    config = LlamaConfig(
        vocab_size=264, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=END_ID, eos_token_id=END_ID,
    )  # fmt: skip
    return _saved(LlamaForCausalLM, config, folder)


def _saved(kind: type[PreTrainedModel], config: object, folder: Path) -> Path:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    return byte_tokenizer(folder, bos_token=END, eos_token=END)
