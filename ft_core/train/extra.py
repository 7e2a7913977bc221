"""Training arguments that a recipe hands through to transformers and TRL: known by name, of the right kind, not ours.

Torch-free: their dataclasses are read as source text, so that the page can refuse before a job is made.
"""

from __future__ import annotations

import ast
import difflib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import FTError

_OURS = {
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "schedule",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "per_device_train_batch_size": "micro_batch",
    "gradient_accumulation_steps": "batch_size and micro_batch",
    "warmup_steps": "warmup",
    "max_length": "max_length",
    "seed": "seed",
    "data_seed": "seed",
    "bf16": "precision",
    "fp16": "precision",
    "save_strategy": "save_every",
    "save_steps": "save_every",
    "eval_strategy": "evaluate_every",
    "eval_steps": "evaluate_every",
    "report_to": "report_to",
}
"""What is a field of the recipe already, and how it is called there."""
_KEPT_BACK = {
    "output_dir": "a job's files lie in its own folder",
    "resume_from_checkpoint": "`resume` goes on from the last whole checkpoint",
    "save_total_limit": "the last checkpoints and the best one are kept",
    "save_only_model": "a checkpoint without its optimizer cannot be resumed",
    "load_best_model_at_end": "the field keep decides it",
    "logging_strategy": "every step is logged",
    "logging_steps": "every step is logged",
    "logging_nan_inf_filter": "a loss that is no number must be seen",
    "auto_find_batch_size": "it changes the batch in silence; out of memory is answered by a smaller micro_batch",
    "remove_unused_columns": "the rows are ready when they reach the trainer",
    "dataset_kwargs": "the rows are ready when they reach the trainer",
    "dataset_text_field": "the rows are ready when they reach the trainer",
    "chat_template_path": "the rows are rendered by the model's own template",
    "packing": "rows are batched by length instead",
    "padding_free": "rows are batched by length instead",
    "assistant_only_loss": "what the assistant says is learnt, always",
    "completion_only_loss": "what the assistant says is learnt, always",
    "loss_type": "the loss is taken over the learnt tokens of a whole step",
    "label_smoothing_factor": "the loss is taken over the learnt tokens of a whole step",
    "use_cpu": "a GPU is used where there is one",
    "push_to_hub": "Export does it, with a card and after its checks",
    "hub_token": "a recipe holds no secret",
    "trust_remote_code": "code from a model's repository is never run",
}
"""What would break a promise, and which."""
_KINDS = {"int": int, "float": (int, float), "bool": bool, "str": str, "dict": dict, "list": list, "None": type(None)}


def check(extra: dict[str, Any]) -> None:
    """Raises FTError for a name that neither library knows, a value of another kind, and what cannot be set here."""
    for name, value in extra.items():
        if name in _OURS:
            raise FTError(f"extra: {name} is a field of the recipe itself", f"Set train: {_OURS[name]}.")
        if name in _KEPT_BACK:
            raise FTError(f"extra: {name} cannot be set: {_KEPT_BACK[name]}", "Leave it out.")
        if name not in known():
            near = difflib.get_close_matches(name, known(), 1)
            hint = f"Did you mean {near[0]!r}?" if near else "See the arguments of TRL's SFTConfig."
            raise FTError(f"extra: there is no training argument {name!r}", hint)
        if not _fits(value, known()[name]):
            raise FTError(f"extra: {name} is of the kind {known()[name]}, not {value!r}", "Write it as YAML would.")


@cache
def known() -> dict[str, str]:
    """Every argument of TRL's SFTConfig and of what it inherits, with its annotation as it is written there."""
    found: dict[str, str] = {}
    for package, module, name in (
        ("transformers", "training_args.py", "TrainingArguments"),
        ("trl", "trainer/base_config.py", "_BaseConfig"),
        ("trl", "trainer/sft_config.py", "SFTConfig"),
    ):
        folder = Path(find_spec(package).origin).parent
        tree = ast.parse((folder / module).read_text(encoding="utf-8"))
        (config,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
        lines = (n for n in config.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name))
        found |= {line.target.id: ast.unparse(line.annotation) for line in lines}
    return found


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value read from YAML can be what the annotation says; enumerations are written as their text."""
    names = {part.partition("[")[0].strip() for part in annotation.split("|")}
    if isinstance(value, bool):  # Python calls it an int
        return "bool" in names
    return any(isinstance(value, _KINDS.get(name, str)) for name in names)
