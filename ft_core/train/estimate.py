"""What a training will take, before it runs: seconds and bytes. Torch-free.

Memory is counted part by part: from the model's configuration, and from what the training keeps of each token for the
way back (fast.py, loss.py and transformers' layers; `python -m benchmarks.estimate` holds it against the system's
figure). Speed is a constant of the kind of machine over the model's size, corrected by the last run of the same model
and method in the project.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path

from .. import events, recipe
from ..machine import Machine, this_machine
from ..recipe import TrainRecipe
from ..workspace import Job, Project, write_whole
from . import machines, methods
from .limits import CHECKPOINTED_FROM, CHUNK, SHORT
from .plan import Plan

PARAMETER_TOKENS_A_SECOND = {"cpu bf16": 3.0e10, "cpu": 1.3e10, "Apple GPU": 3e11, "cuda": 4e12}
"""Parameters of the base times input tokens that LoRA trains in a second; of a CPU, for each core."""
PARAMETER_TOKENS_A_TFLOPS = 1.6e13 / 312
"""The same a second for each TFLOPS that a GPU has at its peak: Llama 2 7B by LoRA on an A100, 2,392 tokens/s
(LLaMA-Factory's wiki), which is a fifth of the peak, or a third with what is computed twice."""
LAYER_S = 0.002
"""A GPU takes at least so long for a layer of a micro-batch; small models wait for that. A guess: none was at hand."""
WORK = {"dora": 1.6, "qlora": 1.3, "qlora-8bit": 1.6, "full": 1.5}
"""Time of a method against LoRA's, which needs four operations a parameter and token: full needs six."""
UPDATE_S_A_PARAMETER = 4e-9
"""AdamW's own time for a trained parameter of a step, on a CPU."""
LIBRARIES_BYTES = 590_000_000
"""A process with torch, transformers, peft and trl that trains, without any model."""
CUDA_BYTES = 1_000_000_000
"""The same on the GPU: CUDA's context and the kernels' scratch."""
HEAP = 1.6
"""What the system's allocator holds for each byte that is kept for the way back: it lies in small pieces, and what was
free between others is not always free in one piece at the next step. Measured over shapes: 1.2 to 1.8."""
START_S = 12.0
"""From the spawn of the process to the first step: libraries and model."""
ANSWERS_S = 5.0
"""Two probe answers of the built-in model on two cores."""
ROWS_MEASURED_AT_ONCE = 8
"""Held-out rows in memory at once."""


@dataclass(frozen=True)
class Shape:
    """What the sizes of a dense decoder follow from: its config.json."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    heads: int
    attention: int
    """Width of the queries of a layer, all heads together."""
    key_value: int
    """Width of the keys of a layer, and of the values."""
    tied: bool

    @classmethod
    def of(cls, folder: Path) -> Shape | None:
        """From the model's folder; None for a model that does not describe itself in the usual words."""
        try:
            return cls.described(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError):
            return None

    @classmethod
    def described(cls, config: dict) -> Shape:
        """From the words of a config.json. Raises KeyError when it has others."""
        config = config.get("text_config", config)
        heads = config["num_attention_heads"]
        head = config.get("head_dim") or config["hidden_size"] // heads
        return cls(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            vocabulary=config["vocab_size"],
            heads=heads,
            attention=heads * head,
            key_value=config.get("num_key_value_heads", heads) * head,
            tied=config.get("tie_word_embeddings", False),
        )

    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of one layer."""
        h, i, a, kv = self.hidden, self.intermediate, self.attention, self.key_value
        return [(h, a), (h, kv), (h, kv), (a, h), (h, i), (h, i), (i, h)]

    @property
    def a_layer(self) -> int:
        """Parameters of one layer."""
        return sum(a * b for a, b in self.linears())

    @property
    def embeddings(self) -> int:
        """Parameters of the embeddings and the head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        return self.embeddings + self.layers * self.a_layer

    def trained(self, recipe_: TrainRecipe) -> int:
        """Parameters that the recipe's method trains."""
        match recipe_.method:
            case "full":
                return self.parameters
            case "layers":
                return min(recipe_.layers, self.layers) * self.a_layer
        magnitudes = sum(b for _, b in self.linears()) if recipe_.method == "dora" else 0
        return self.layers * (recipe_.rank * sum(a + b for a, b in self.linears()) + magnitudes)


@dataclass(frozen=True)
class Estimate:
    seconds: float
    memory_bytes: int
    parts: dict[str, int]
    """Bytes by part; they add up to memory_bytes."""
    checkpoint_bytes: int
    """On disk."""
    training_seconds: float
    """Of the seconds those of the steps themselves, without loading, measuring and answering."""


@dataclass(frozen=True)
class Work:
    """What is trained on, in rows and tokens."""

    rows: int
    tokens: int
    """Input tokens of one epoch, without padding."""
    heldout_tokens: int
    longest: int
    """Tokens of the longest row, as it is cut."""
    learnt: int
    """The most learnt tokens that a row has."""


def estimate(
    shape: Shape, recipe_: TrainRecipe, machine: Machine, work: Work, tokens_per_s: float | None = None
) -> Estimate:
    """`tokens_per_s` is what a run of the same model and method showed; without it the machine's constant is taken."""
    plan = Plan.of(work.rows, recipe_)
    steps = plan.steps
    trained = work.tokens * steps / plan.steps_an_epoch
    if tokens_per_s:
        speed, training = tokens_per_s, trained / tokens_per_s
    else:
        speed = _speed(machine) / shape.parameters
        training = trained / speed * _work(shape, recipe_)
        if machine.gpu:
            micro_batches = -(-min(recipe_.batch_size, work.rows) // recipe_.micro_batch)
            training = max(training, steps * micro_batches * shape.layers * LAYER_S)
        else:
            training += steps * shape.trained(recipe_) * UPDATE_S_A_PARAMETER
    # Measuring is a forward pass alone, a third of the work, in fp32 at both ends.
    looks = len(plan.looks())
    measured = work.heldout_tokens * (looks - 2) / (3 * speed) + work.heldout_tokens * 2 / speed
    answers = ANSWERS_S * looks * (shape.parameters / 1.35e8) * _speed(Machine(2, 0, "", 0)) / _speed(machine)
    parts = memory(shape, recipe_, machine, work)
    # Weights and two moments, in fp32, of what is trained.
    checkpoint = 12 * shape.trained(recipe_)
    return Estimate(START_S + training + measured + answers, sum(parts.values()), parts, checkpoint, training)


def promised(job: Job, base: Path, wanted: recipe.Recipe, work: Work) -> dict[str, float]:
    """What the result says of the estimate beside what was measured; made once a job. Empty for an unusual model."""
    path = job.path / "report" / "estimate.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    if (shape := Shape.of(base)) is None:
        return {}
    said = estimate(shape, wanted.train, this_machine(), work, measured_speed(job.project, wanted))
    found = {"estimated_memory_bytes": said.memory_bytes, "estimated_seconds": said.training_seconds}
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(found))
    return found


def measured_speed(project: Project, wanted: recipe.Recipe) -> float | None:
    """Tokens a second of the project's last finished training of the same model, by the same method."""
    for job in project.jobs():
        ended = events.last(job.events)
        if not isinstance(ended, events.Finished) or "tokens_per_s" not in ended.result:
            continue
        was = recipe.load(job.recipe)
        if was.model.base == wanted.model.base and was.train.method == wanted.train.method:
            return ended.result["tokens_per_s"]
    return None


def stored_precision(recipe_: TrainRecipe, machine: Machine) -> str:
    """What `auto` will become; train/model.py asks torch, this asks the system."""
    if recipe_.precision != "auto":
        return recipe_.precision
    if machine.gpu:
        return "fp32" if machine.gpu == "Apple GPU" else "bf16"
    return "bf16" if _multiplies_bf16() else "fp32"


def memory(shape: Shape, recipe_: TrainRecipe, machine: Machine, work: Work) -> dict[str, int]:
    """Bytes by part at the peak: of the GPU where there is one, else of the process."""
    width = 4 if stored_precision(recipe_, machine) == "fp32" else 2
    trained = shape.trained(recipe_)
    rows = min(recipe_.micro_batch, recipe_.batch_size, work.rows) * (2 if recipe_.learns == "preferences" else 1)
    cuda = machine.gpu not in ("", "Apple GPU")
    return {
        "libraries": CUDA_BYTES if cuda else LIBRARIES_BYTES,
        "weights": _weights(shape, recipe_, width),
        # Weight, gradient and two moments in fp32; a model's own weights are counted above, and are rounded anew.
        "trained weights and optimizer": trained * (12 + (width if width < 4 else 0))
        if recipe_.method in methods.WEIGHTS
        else trained * 16,
        "activations": _activations(shape, recipe_, machine, rows, work, width),
        "logits": _logits(shape, recipe_, rows * work.learnt, work, width),
    }


def _weights(shape: Shape, recipe_: TrainRecipe, width: int) -> int:
    """All that lies in memory of the model itself, as it is stored while it trains."""
    match recipe_.method:
        case "full":
            return 4 * shape.parameters
        case "layers":
            return width * shape.parameters + (4 - width) * shape.trained(recipe_)
        case "qlora" | "qlora-8bit" as method:
            linears = shape.parameters - shape.embeddings
            # 4 bits and the doubly quantised scale of each 64 (0.127 bits a weight); 8 bits and a scale a row.
            return round(linears * (0.516 if method == "qlora" else 1.0)) + width * shape.embeddings
    return width * shape.parameters


def _activations(shape: Shape, recipe_: TrainRecipe, machine: Machine, rows: int, work: Work, width: int) -> int:
    """What is kept of each token for the way back, and what one layer needs beside it while it computes."""
    longest = -(-work.longest // 8) * 8
    h, i = shape.hidden, shape.intermediate
    kept = _kept(shape, recipe_, longest <= SHORT and not machine.gpu, longest, width)
    layers = min(recipe_.layers, shape.layers) if recipe_.method == "layers" else shape.layers
    if shape.parameters >= CHECKPOINTED_FROM:
        kept_of_all = shape.layers * width * h + kept
    else:
        kept_of_all = layers * kept
    measured = min(ROWS_MEASURED_AT_ONCE, round(work.rows * work.heldout_tokens / max(1, work.tokens)))
    held = rows * longest * kept_of_all * (1 if machine.gpu else HEAP)
    return round(held) + max(rows, measured) * longest * 4 * (3 * i + 4 * h)


def _kept(shape: Shape, recipe_: TrainRecipe, plain: bool, longest: int, width: int) -> int:
    """Bytes of a token in one layer, as autograd keeps them."""
    h, i, a, kv = shape.hidden, shape.intermediate, shape.attention, shape.key_value
    attention = width * (2 * a + 2 * kv)  # queries, keys, values, and what comes out
    if plain:  # keys and values of all heads, and the weights in fp32 and as they are used
        attention = width * 4 * a + (4 + width) * shape.heads * longest
    mlp = width * 4 * i
    if recipe_.method in methods.WEIGHTS:
        # The norms' weights are learnt too, so that each keeps its input twice, and each linear layer its own copy.
        return attention + mlp + width * (5 * h + a) + 16 * h
    if recipe_.method == "dora" or recipe_.dropout:  # peft's own way: each linear layer's input in fp32, and more
        return attention + mlp + 8 * h + sum(4 * wide + 8 * out for wide, out in shape.linears())
    return attention + mlp + width * 2 * h + 8 * h + 7 * width * recipe_.rank


def _logits(shape: Shape, recipe_: TrainRecipe, learnt: int, work: Work, width: int) -> int:
    """Of one chunk on the way forward: as the head gives them, in fp32, their logarithms, and two gradients."""
    training = min(CHUNK, learnt) * shape.vocabulary * 13
    # Measured in fp32 the head is widened, and the logits are there once.
    heldout = min(CHUNK, ROWS_MEASURED_AT_ONCE * work.learnt)
    widened = 0 if width == 4 or recipe_.method == "full" else 4 * shape.vocabulary * shape.hidden
    return max(training, widened + heldout * shape.vocabulary * 4)


def _work(shape: Shape, recipe_: TrainRecipe) -> float:
    """Time of a token against LoRA's."""
    if recipe_.method == "layers":  # two operations a parameter on the way forward, four on the way back
        return 0.5 + shape.trained(recipe_) / shape.parameters
    return WORK.get(recipe_.method, 1.0)


def _speed(machine: Machine) -> float:
    if machine.gpu == "Apple GPU":
        return PARAMETER_TOKENS_A_SECOND["Apple GPU"]
    if machine.gpu:
        peak = machines.tflops(machine.gpu)
        return peak * PARAMETER_TOKENS_A_TFLOPS if peak else PARAMETER_TOKENS_A_SECOND["cuda"]
    return machine.cores * PARAMETER_TOKENS_A_SECOND["cpu bf16" if _multiplies_bf16() else "cpu"]


def _multiplies_bf16() -> bool:
    """Whether the CPU has instructions for bf16, as Linux tells."""
    if platform.system() != "Linux":
        return False
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    return "avx512_bf16" in flags or "amx_bf16" in flags
