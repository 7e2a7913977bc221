"""The memory of a training at its peak, part by part. Torch-free.

Counted from the model's shape, and from what the training keeps of each token for the way back (fast.py, loss.py and
transformers' layers). `python -m benchmarks.estimate` holds it against the system's figure.
"""

from __future__ import annotations

from math import ceil

from ..machine import Machine, multiplies_bf16
from ..recipe import TrainRecipe
from . import methods
from .limits import BLOCK, CHECKPOINTED_FROM, CHUNK, LINES, LOOKED, PAD_TO, SHORT
from .sizes import Shape, Work

LIBRARIES_BYTES = 590_000_000
"""A process with torch, transformers, peft and trl that trains, without any model."""
KERNELS_BYTES = 90_000_000
"""What oneDNN, which multiplies bf16 on a CPU, keeps of its code for each shape of a product: half a megabyte."""
CUDA_BYTES = 1_000_000_000
"""The same on the GPU: CUDA's context and the kernels' scratch."""
HEAP, HEAP_SHORT = 1.6, 2.0
"""What the system's allocator holds for each byte that is kept for the way back: it lies in small pieces, and what was
free between others is not always free in one piece at the next step. Measured over shapes: 1.2 to 1.6, and 1.7 to 2.0
where rows are SHORT, whose pieces are the smallest and are more."""
ROWS_MEASURED_AT_ONCE = 8
"""Held-out rows in memory at once."""
LAYERS_TOGETHER = 2
"""Layers that a process of several has whole, when each keeps a part of the weights: one computes, the next comes."""


def stored_precision(recipe_: TrainRecipe, machine: Machine) -> str:
    """What `auto` will become; train/model.py asks torch, this asks the system."""
    if recipe_.precision != "auto":
        return recipe_.precision
    if machine.gpu:
        return "fp32" if machine.gpu == "Apple GPU" else "bf16"
    return "bf16" if multiplies_bf16() else "fp32"


def memory(shape: Shape, recipe_: TrainRecipe, machine: Machine, work: Work, shares: int = 1) -> dict[str, int]:
    """Bytes by part at the peak: of the GPU where there is one, else of the process.

    `shares` are the processes of which each keeps a part of the weights, of their gradients and moments (shards.py).
    """
    width = 4 if stored_precision(recipe_, machine) == "fp32" else 2
    trained = shape.trained(recipe_)
    rows = min(recipe_.micro_batch, recipe_.batch_size, work.rows) * (2 if recipe_.learns == "preferences" else 1)
    cuda = machine.gpu not in ("", "Apple GPU")
    return {
        "libraries": CUDA_BYTES if cuda else LIBRARIES_BYTES + (0 if machine.gpu or width == 4 else KERNELS_BYTES),
        # Each loads the whole model into the memory of the CPU, and leaves its part of it there or on its GPU.
        "weights": _weights(shape, recipe_, width) // shares + _together(shape, recipe_, width)
        if cuda and shares > 1
        else _weights(shape, recipe_, width) + (0 if machine.gpu else _joined(shape, recipe_, width)),
        # Weight, gradient and two moments in fp32; a model's own weights are counted above, and are rounded anew.
        "trained weights and optimizer": trained
        * (12 + (width if width < 4 else 0) if recipe_.method in methods.WEIGHTS else 16)
        // shares,
        "activations": _activations(shape, recipe_, machine, rows, work, width),
        "logits": _logits(shape, recipe_, machine, rows * work.learnt, work, width),
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


def _joined(shape: Shape, recipe_: TrainRecipe, width: int) -> int:
    """What fast.py copies on a CPU to multiply by it at once; the system still counts the file that it came from."""
    if not methods.leaves_adapter(recipe_.method) or recipe_.method == "dora" or recipe_.dropout:
        return 0
    of_a_layer = shape.attention + 2 * shape.key_value + 2 * shape.intermediate
    return width * shape.layers * shape.hidden * of_a_layer


def _together(shape: Shape, recipe_: TrainRecipe, width: int) -> int:
    """What is put together of weights that are shared out: embeddings and head, from the start of a step to its end,
    and some layers; with their gradients where they are trained.
    """
    whole = shape.embeddings + LAYERS_TOGETHER * shape.a_layer
    return whole * (8 if recipe_.method == "full" else width)


def _activations(shape: Shape, recipe_: TrainRecipe, machine: Machine, rows: int, work: Work, width: int) -> int:
    """What is kept of each token for the way back, and what one layer needs beside it while it computes."""
    longest = -(-work.longest // PAD_TO) * PAD_TO
    h, i = shape.hidden, shape.intermediate
    plain = longest <= SHORT and not machine.gpu
    attention, others = _kept(shape, recipe_, plain, longest, width)
    padded = rows * longest
    line = padded if machine.gpu else min(padded, _line(rows, longest, recipe_, work))
    kept = padded * attention + line * others
    layers = min(recipe_.layers, shape.layers) if recipe_.method == "layers" else shape.layers
    if shape.parameters >= CHECKPOINTED_FROM:
        kept_of_all = line * shape.layers * width * h + kept
    else:
        kept_of_all = layers * kept
    measured = min(ROWS_MEASURED_AT_ONCE, round(work.rows * work.heldout_tokens / max(1, work.tokens)))
    if recipe_.learns == "preferences":  # what the model says of all pairs before the training
        measured = min(ROWS_MEASURED_AT_ONCE, work.rows)
    held = kept_of_all * (1 if machine.gpu else HEAP_SHORT if plain else HEAP)
    return round(held) + max(line, measured * longest) * 4 * (3 * i + 4 * h)


def _line(rows: int, longest: int, recipe_: TrainRecipe, work: Work) -> int:
    """Tokens of as many rows as a CPU computes them (packing.py): what rows begin with alike once.

    A step's rows are taken by chance (plan.py): all together they are hardly ever longer than usual by more than three
    deviations, or than the longest row among usual ones. Of its micro-batches the last has the longest rows.
    """
    answers = 2 if recipe_.learns == "preferences" else 1
    of_a_step = min(recipe_.batch_size, work.rows) * answers
    usual = work.tokens / (work.rows * answers)
    by_chance = of_a_step * usual + 3 * of_a_step**0.5 * work.spread
    together = min(rows * longest, max(by_chance, longest + (of_a_step - 1) * usual))
    pairs = rows // 2 if work.asked else 0
    alone = together - (rows - 1) * work.shared - pairs * max(0, work.asked - work.shared)
    return ceil(alone / LINES) * LINES


def _kept(shape: Shape, recipe_: TrainRecipe, plain: bool, longest: int, width: int) -> tuple[int, int]:
    """Bytes of a token in one layer, as autograd keeps them: of attention, which is given rows, and of all else."""
    a, kv = shape.attention, shape.key_value
    attention = width * (a + 2 * kv)  # queries, keys, values
    if plain:  # keys and values of all heads, and the weights in fp32 and as they are used
        attention = width * 3 * a + (4 + width) * shape.heads * longest
    return attention, width * a + _kept_of_others(shape, recipe_, width)


def _kept_of_others(shape: Shape, recipe_: TrainRecipe, width: int) -> int:
    h, i, a = shape.hidden, shape.intermediate, shape.attention
    mlp = width * 4 * i
    if recipe_.method in methods.WEIGHTS:
        # The norms' weights are learnt too, so that each keeps its input twice, and each linear layer its own copy.
        return mlp + width * (5 * h + a) + 16 * h
    if recipe_.method == "dora" or recipe_.dropout:  # peft's own way: each linear layer's input in fp32, and more
        return mlp + 8 * h + sum(4 * wide + 8 * out for wide, out in shape.linears())
    return mlp + width * 2 * h + 8 * h + 7 * width * recipe_.rank


def _logits(shape: Shape, recipe_: TrainRecipe, machine: Machine, learnt: int, work: Work, width: int) -> int:
    """Of one chunk on the way forward: as the head gives them, in fp32, their logarithms, and two gradients.

    Under a frozen head a CPU has only a block of the chunk in fp32, and the rest as the head gives it. It keeps the
    memory of a step (jobs.CHILD_ENVIRONMENT), which lies in pieces too small for what is measured after it.
    """
    blocks = not machine.gpu and recipe_.method != "full"
    widened_at_once = min(BLOCK if blocks else CHUNK, learnt)
    training = (widened_at_once * 13 + (min(CHUNK, learnt) * width if blocks else 0)) * shape.vocabulary
    # Measured in fp32 the head is widened, and the logits are there with their logarithms.
    looked_at_once = min(LOOKED, ROWS_MEASURED_AT_ONCE * work.learnt)
    widened = 0 if width == 4 or recipe_.method == "full" else 4 * shape.vocabulary * shape.hidden
    measuring = widened + looked_at_once * shape.vocabulary * 8
    return max(training, measuring) if machine.gpu else training + measuring
