"""What a training changed, as files in the job's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from peft import PeftModel

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def save(model: PeftModel, base_folder: Path, base_name: str, into: Path) -> None:
    """The adapter as safetensors, with the tokenizer and chat template it was trained with; whole or not at all."""
    part = into.with_name(".adapter.part")
    shutil.rmtree(part, ignore_errors=True)
    # Until now it was the folder, where peft looks whether the vocabulary changed; a name would send it to the Hub.
    model.peft_config["default"].base_model_name_or_path = base_name
    model.save_pretrained(part, save_embedding_layers=False)
    (part / "README.md").unlink(missing_ok=True)  # export writes a true one
    for name in _TOKENIZER_FILES:
        if (base_folder / name).exists():
            shutil.copyfile(base_folder / name, part / name)
    shutil.rmtree(into, ignore_errors=True)
    part.rename(into)
