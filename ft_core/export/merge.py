"""The adapter as files of its own, and what was trained in its base: ordinary Hugging Face folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from ..train import methods, weights
from .trained import Trained, write_json
from .verify import Check, chat_ids, log_probabilities

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
NOTICES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
"""What a base wants to travel along with what is made of it."""


def copy_adapter(trained: Trained, out: Path) -> Iterator[float]:
    """Writes PEFT's two files, the tokenizer and the chat template into `out`. Yields the share done."""
    out.mkdir(parents=True)
    source = trained.job.adapter
    shutil.copy(source / "adapter_model.safetensors", out)
    settings = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = trained.base_name
    settings["revision"] = trained.recipe.model.revision or None
    write_json(out / "adapter_config.json", settings)
    _copy_tokenizer(trained, out)
    yield 1.0


def check_adapter(trained: Trained, folder: Path) -> list[Check]:
    """Loads the copied adapter onto its base, and looks whether it changes what the model says."""
    base = _base(trained)
    ids = torch.tensor([trained.renderer.prompt(trained.prompts(1)[0])[-512:]])
    with torch.inference_mode():
        before = base(ids).logits[0, -1].float()
        after = PeftModel.from_pretrained(base, folder)(ids).logits[0, -1].float()
    difference = float((before - after).abs().max())
    return [
        Check("adapter: loads on its base", "gate", bool(torch.isfinite(after).all()), 1.0),
        Check("adapter: changes the answers (largest logit difference)", "warning", difference > 0, difference),
    ]


def merge(trained: Trained, out: Path) -> Iterator[float]:
    """Puts what was trained into the base's weights and saves them in bf16 with all that transformers needs to chat.

    The base is read anew on the CPU at 16 bits or more, whatever it was trained in: weights of 4 bit cannot take an
    adapter in without losing it. Yields the share done, returns what the trained model says before that, at the places
    of `chat_ids`, as log_probabilities does. Raises ValueError from PEFT when a merged weight is not finite.
    """
    if methods.leaves_adapter(trained.recipe.train.method):
        model = _base(trained)
        yield 0.3
        tuned = PeftModel.from_pretrained(model, trained.job.adapter)
        said = log_probabilities(tuned, chat_ids(trained))
        merged = tuned.merge_and_unload(safe_merge=True)
    else:
        model = _base(trained, torch.float32)  # as the changed weights are
        yield 0.3
        weights.put(model, trained.job.adapter)
        said = log_probabilities(model, chat_ids(trained))
        merged = model.to(torch.bfloat16)
    yield 0.7
    merged.config._name_or_path = trained.base_name
    merged.generation_config = _generation(trained, merged)
    merged.save_pretrained(out)
    _copy_tokenizer(trained, out)
    yield 1.0
    return said


def _base(trained: Trained, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(trained.base, dtype=dtype, device_map=None).eval()


def _generation(trained: Trained, model: PreTrainedModel) -> GenerationConfig:
    """The base's own, which ends at the token that ends an answer in training too."""
    settings = model.generation_config
    known = settings.eos_token_id
    ends = [trained.ends.end_id, *(known if isinstance(known, list) else [known])]
    settings.eos_token_id = list(dict.fromkeys(end for end in ends if end is not None))
    # A base may come with temperatures that it does not use; transformers refuses to save those.
    settings.do_sample = settings.do_sample or settings.temperature not in (None, 1.0)
    return settings


def _copy_tokenizer(trained: Trained, out: Path) -> None:
    """Byte for byte, so that the tokens are those of the training; the template without training's own marks."""
    for pattern in (*TOKENIZER_FILES, *NOTICES):
        for file in trained.base.glob(pattern):
            shutil.copy(file, out / file.name)
    (out / "chat_template.jinja").write_text(trained.renderer.template, encoding="utf-8")
