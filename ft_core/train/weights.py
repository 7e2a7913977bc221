"""What a training changed, as files in the job's folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from ..recipe import TrainRecipe
from ..render import Renderer
from .further import ABOUT, CHANGED

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


def save(
    model: PeftModel | PreTrainedModel, base_folder: Path, base_name: str, train: TrainRecipe, into: Path
) -> None:
    """What was trained as safetensors, with the tokenizer and chat template it was trained with; whole or not at all.

    An adapter is as peft saves it; else there are CHANGED and ABOUT.
    """
    part = into.with_name(".adapter.part")
    shutil.rmtree(part, ignore_errors=True)
    if isinstance(model, PeftModel):
        # Until now it was the folder, where peft looks whether the vocabulary changed; a name sends it to the Hub.
        model.peft_config["default"].base_model_name_or_path = base_name
        model.save_pretrained(part, save_embedding_layers=False)
        (part / "README.md").unlink(missing_ok=True)  # export writes a true one
    else:
        part.mkdir()
        state = model.state_dict()
        changed = {name: state[name].contiguous() for name, p in model.named_parameters() if p.requires_grad}
        save_file(changed, part / CHANGED, {"format": "pt"})
        _write_about(part, base_name, train)
    _add_tokenizer(base_folder, part)
    shutil.rmtree(into, ignore_errors=True)
    part.rename(into)


def adopt(checkpoint: Path, base_folder: Path, base_name: str, train: TrainRecipe, into: Path) -> None:
    """What `save` leaves, from a checkpoint alone: of a training that ended before it could. No model is loaded.

    `base_folder` is for the tokenizer; weights need not be in it.
    """
    part = into.with_name(".adapter.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    if (config := checkpoint / "adapter_config.json").exists():
        about = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": base_name}
        (part / config.name).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(checkpoint / "adapter_model.safetensors", part / "adapter_model.safetensors")
    else:
        files = [load_file(file) for file in checkpoint.glob("model*.safetensors")]
        whole = {name: tensor for file in files for name, tensor in file.items()}
        save_file({n: t for n, t in whole.items() if t.dtype is torch.float32}, part / CHANGED, {"format": "pt"})
        _write_about(part, base_name, train)
    _add_tokenizer(base_folder, part)
    shutil.rmtree(into, ignore_errors=True)
    part.rename(into)


def _write_about(part: Path, base_name: str, train: TrainRecipe) -> None:
    about = {"method": train.method, "base_model_name_or_path": base_name}
    about |= {"layers": train.layers} if train.method == "layers" else {}
    (part / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _add_tokenizer(base_folder: Path, part: Path) -> None:
    for name in _TOKENIZER_FILES:
        if (base_folder / name).exists():
            shutil.copyfile(base_folder / name, part / name)
    if (renderer := Renderer.of(base_folder)).plain:  # the base brings none
        (part / "chat_template.jinja").write_text(renderer.template, encoding="utf-8")


def restore(model: PeftModel | PreTrainedModel, checkpoint: Path) -> None:
    """Gives `model` the weights of a checkpoint of its own training."""
    if isinstance(model, PeftModel):
        model.load_adapter(checkpoint, "default", is_trainable=True)
        return
    for file in checkpoint.glob("model*.safetensors"):
        model.load_state_dict(load_file(file, str(model.device)), strict=False)  # a tied head is not written twice


def put(model: PreTrainedModel, folder: Path) -> None:
    """Puts the weights of `folder` (CHANGED) in the place of the model's own, in its arithmetic, one at a time.

    The tensors that stood there are left as they are, for whoever else holds them.
    """
    with safe_open(folder / CHANGED, "pt") as file:
        for name in file.keys():
            owner, _, leaf = name.rpartition(".")
            old = model.get_parameter(name)
            new = file.get_tensor(name).to(old.device, old.dtype)
            setattr(model.get_submodule(owner), leaf, nn.Parameter(new, requires_grad=old.requires_grad))
    model.tie_weights()
