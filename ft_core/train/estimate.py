"""What a training will take, before it runs: seconds and bytes. Torch-free.

Speed is a constant of the kind of machine over the model's size, corrected by the last run of the same model in the
project. Memory is counted part by part from the model's configuration.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path

from .. import jobs, recipe
from ..events import State
from ..machine import Machine
from ..recipe import TrainRecipe
from ..workspace import Project
from .plan import Plan

PARAMETER_TOKENS_A_SECOND = {"cpu bf16": 3.0e10, "cpu": 1.3e10, "Apple GPU": 3e11, "cuda": 4e12}
"""Parameters of the base times input tokens that LoRA trains in a second; of a CPU, for each core."""
LIBRARIES_BYTES = 700_000_000
"""A process with torch, transformers, peft and trl, before any model."""
START_S = 12.0
"""From the spawn of the process to the first step: libraries and model."""
ANSWERS_S = 5.0
"""Two probe answers of the built-in model on two cores."""


@dataclass(frozen=True)
class Shape:
    """What the sizes of a dense decoder follow from: its config.json."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    attention: int
    """Width of the queries of a layer, all heads together."""
    key_value: int
    """Width of the keys of a layer, and of the values."""
    tied: bool

    @classmethod
    def of(cls, folder: Path) -> Shape | None:
        """From the model's folder; None for a model that does not describe itself in the usual words."""
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config = config.get("text_config", config)
            heads = config["num_attention_heads"]
            head = config.get("head_dim") or config["hidden_size"] // heads
            return cls(
                hidden=config["hidden_size"],
                intermediate=config["intermediate_size"],
                layers=config["num_hidden_layers"],
                vocabulary=config["vocab_size"],
                attention=heads * head,
                key_value=config.get("num_key_value_heads", heads) * head,
                tied=config.get("tie_word_embeddings", False),
            )
        except (OSError, ValueError, KeyError):
            return None

    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of one layer."""
        h, i, a, kv = self.hidden, self.intermediate, self.attention, self.key_value
        return [(h, a), (h, kv), (h, kv), (a, h), (h, i), (h, i), (i, h)]

    @property
    def parameters(self) -> int:
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * sum(a * b for a, b in self.linears())


@dataclass(frozen=True)
class Estimate:
    seconds: float
    memory_bytes: int
    parts: dict[str, int]
    """Bytes by part; they add up to memory_bytes."""


@dataclass(frozen=True)
class Work:
    """What is trained on, in rows and tokens."""

    rows: int
    tokens: int
    """Input tokens of one epoch, without padding."""
    heldout_tokens: int
    longest: int
    """Tokens of the longest row, as it is cut."""


def estimate(
    shape: Shape, recipe_: TrainRecipe, machine: Machine, work: Work, tokens_per_s: float | None = None
) -> Estimate:
    """`tokens_per_s` is what a run of the same model showed; without it the machine's constant is taken."""
    speed = tokens_per_s or _speed(machine) / shape.parameters
    plan = Plan.of(work.rows, recipe_)
    trained = work.tokens * plan.steps / plan.steps_an_epoch
    # Measuring is a forward pass alone, a third of the work, in fp32 at both ends.
    looks = len(plan.looks())
    measured = work.heldout_tokens * (looks - 2) / (3 * speed) + work.heldout_tokens * 2 / speed
    answers = ANSWERS_S * looks * (shape.parameters / 1.35e8) * _speed(Machine(2, 0, "", 0)) / _speed(machine)
    parts = _memory(shape, recipe_, machine, work)
    return Estimate(START_S + trained / speed + measured + answers, sum(parts.values()), parts)


def measured_speed(project: Project, base: str) -> float | None:
    """Tokens a second of the project's last finished training of `base`."""
    for job in project.jobs():
        if not job.recipe.exists():
            continue
        seen = jobs.view(job)
        if seen.kind == "train" and seen.state is State.FINISHED and recipe.load(job.recipe).model.base == base:
            return seen.result.get("tokens_per_s")
    return None


def stored_precision(recipe_: TrainRecipe, machine: Machine) -> str:
    """What `auto` will become; train/model.py asks torch, this asks the system."""
    if recipe_.precision != "auto":
        return recipe_.precision
    if machine.gpu:
        return "fp32" if machine.gpu == "Apple GPU" else "bf16"
    return "bf16" if _multiplies_bf16() else "fp32"


def _memory(shape: Shape, recipe_: TrainRecipe, machine: Machine, work: Work) -> dict[str, int]:
    bytes_each = 4 if stored_precision(recipe_, machine) == "fp32" else 2
    adapters = shape.layers * recipe_.rank * sum(a + b for a, b in shape.linears())
    tokens = min(recipe_.micro_batch, recipe_.batch_size, work.rows) * work.longest
    # Kept of each token in each layer for the way back: LoRA's inputs in fp32, the norms' in fp32, attention and MLP.
    widths = sum(4 * a for a, _ in shape.linears()) + 24 * shape.hidden
    widths += bytes_each * (2 * shape.attention + 2 * shape.key_value + 5 * shape.intermediate)
    return {
        "libraries": LIBRARIES_BYTES,
        "weights": shape.parameters * bytes_each,
        "adapters and optimizer": adapters * 16,  # weight, gradient and two moments, in fp32
        "activations": tokens * shape.layers * widths,
        "logits": 256 * shape.vocabulary * 12,
    }


def _speed(machine: Machine) -> float:
    if machine.gpu:
        return PARAMETER_TOKENS_A_SECOND["Apple GPU" if machine.gpu == "Apple GPU" else "cuda"]
    return machine.cores * PARAMETER_TOKENS_A_SECOND["cpu bf16" if _multiplies_bf16() else "cpu"]


def _multiplies_bf16() -> bool:
    """Whether the CPU has instructions for bf16, as Linux tells."""
    if platform.system() != "Linux":
        return False
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    return "avx512_bf16" in flags or "amx_bf16" in flags
