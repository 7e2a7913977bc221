"""What a training will take, before it runs: seconds and bytes. Torch-free.

Memory is memory.py's. Speed is a constant of the kind of machine over the model's size, until a run of the same model
and method in the project, or three steps of it (measure.py), have shown it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .. import events, recipe
from ..machine import Machine, multiplies_bf16, multiplies_sixteen, this_machine
from ..recipe import TrainRecipe
from ..workspace import Job, Project, write_whole
from . import machines, methods, processes
from .limits import COMPILED, COMPILED_FROM_S, COMPILING_S
from .memory import memory
from .plan import Plan, of_one
from .sizes import Shape, Work

PARAMETER_TOKENS_A_SECOND = {"cpu bf16": 3.0e10, "cpu avx512": 1.3e10, "cpu": 8.5e9, "Apple GPU": 3e11, "cuda": 4e12}
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
START_S = 12.0
"""From the spawn of the process to the first step: libraries and model."""
ANSWERS_S = 5.0
"""Two probe answers of the built-in model on two cores."""


@dataclass(frozen=True)
class Estimate:
    seconds: float
    memory_bytes: int
    parts: dict[str, int]
    """Bytes by part; they add up to memory_bytes."""
    checkpoint_bytes: int
    """On disk."""
    training_seconds: float
    """Of the seconds those of the steps themselves, without loading, compiling, measuring and answering."""
    compiled: bool
    """Its layers are compiled first, where its recipe wants that or leaves it open."""


def estimate(
    shape: Shape,
    recipe_: TrainRecipe,
    machine: Machine,
    work: Work,
    tokens_per_s: float | None = None,
    shares: int = 1,
) -> Estimate:
    """`tokens_per_s` is what a run of the same model and method showed; without it the machine's constant is taken.
    `shares`: as in memory.
    """
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
    compiled = _compiles(shape, recipe_, machine, training)
    if compiled:
        training *= COMPILED
    # Measuring is a forward pass alone, a third of the work, in fp32 at both ends.
    looks = len(plan.looks())
    measured = work.heldout_tokens * (looks - 2) / (3 * speed) + work.heldout_tokens * 2 / speed
    answers = ANSWERS_S * looks * (shape.parameters / 1.35e8) * _speed(Machine(2, 0, "", 0)) / _speed(machine)
    parts = memory(shape, recipe_, machine, work, shares)
    # Weights and two moments, in fp32, of what is trained.
    checkpoint = 12 * shape.trained(recipe_)
    seconds = START_S + (COMPILING_S if compiled else 0.0) + training + measured + answers
    return Estimate(seconds, sum(parts.values()), parts, checkpoint, training, compiled)


def promised(job: Job, base: Path, wanted: recipe.Recipe, work: Work) -> dict[str, float]:
    """What the result says of the estimate beside what was measured, and whether layers are to be `compiled`.

    Made once a job. Empty for an unusual model.
    """
    path = job.path / "report" / "estimate.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    if (shape := Shape.of(base)) is None:
        return {}
    train = of_one(wanted.train, wanted.compute.processes)
    speed = measured_speed(job.project, wanted, job.path)
    said = estimate(shape, train, this_machine(), work, speed, processes.shares(wanted.compute, train.method))
    found = {
        "estimated_memory_bytes": said.memory_bytes,
        "estimated_seconds": said.training_seconds,
        "compiled": said.compiled,
    }
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(found))
    return found


def measured_speed(project: Project, wanted: recipe.Recipe, recipe_folder: Path) -> float | None:
    """Tokens a second of the project's last finished training, or measuring, of the same model by the same method.

    As plain layers would have made them, where that one's were compiled. Folders of `wanted` are relative to
    `recipe_folder`.
    """

    def speed_of(wanted: recipe.Recipe, folder: Path) -> tuple[object, ...]:
        base = folder / wanted.model.base
        model = base.resolve() if base.is_dir() else (wanted.model.base, wanted.model.revision)
        return model, wanted.train.method, wanted.compute.where, wanted.compute.processes

    for job in project.jobs():
        ended = events.last(job.events)
        if not isinstance(ended, events.Finished) or "tokens_per_s" not in ended.result:
            continue
        made_by = recipe.load(job.recipe)
        if speed_of(made_by, job.path) == speed_of(wanted, recipe_folder):
            return ended.result["tokens_per_s"] * (COMPILED if made_by.train.compiled == "yes" else 1.0)
    return None


def _work(shape: Shape, recipe_: TrainRecipe) -> float:
    """Time of a token against LoRA's."""
    if recipe_.method == "layers":  # two operations a parameter on the way forward, four on the way back
        return 0.5 + shape.trained(recipe_) / shape.parameters
    return WORK.get(recipe_.method, 1.0)


def _compiles(shape: Shape, recipe_: TrainRecipe, machine: Machine, seconds: float) -> bool:
    """Whether a training that would take so long compiles its layers; as compiled.py, but for a compiler it lacks."""
    wanted = recipe_.compiled == "yes" or (recipe_.compiled == "auto" and seconds >= COMPILED_FROM_S)
    return wanted and not methods.why_not_compiled(recipe_, shape.parameters, machine)


def _speed(machine: Machine) -> float:
    if machine.gpu == "Apple GPU":
        return PARAMETER_TOKENS_A_SECOND["Apple GPU"]
    if machine.gpu:
        peak = machines.tflops(machine.gpu)
        return peak * PARAMETER_TOKENS_A_TFLOPS if peak else PARAMETER_TOKENS_A_SECOND["cuda"]
    kind = "cpu bf16" if multiplies_bf16() else "cpu avx512" if multiplies_sixteen() else "cpu"
    return machine.cores * PARAMETER_TOKENS_A_SECOND[kind]
