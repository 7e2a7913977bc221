"""The recipe: everything that decides what a run becomes, as documented values and as strict YAML.

One knob is one field here. Its attribute docstring (meaning, unit, when to touch it) is the comment in the YAML, the
line in `--help` and the text under the widget; its default and range are the widget's. A recipe holds no secret and
no absolute path: it is meant for git and for other machines.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import os
import textwrap
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from .errors import FTError

BUILTIN = "built-in"
"""The base model that needs no account and no download: SmolLM2-135M-Instruct."""


def _number(default: float, low: float, high: float) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


def _choice(default: str, *options: str) -> Any:
    return field(default=default, metadata={"options": options})


@dataclass(frozen=True)
class DataRecipe:
    """Which rows."""

    files: tuple[str, ...] = ()
    """Files to import, relative to the recipe: CSV, JSON, JSONL or Parquet. Read by `run`."""
    system: str = ""
    """The system prompt of every conversation that brings none: who the assistant is. Empty leaves it to the model."""
    heldout: float = _number(0.1, 0.0, 0.5)
    """Share of the rows that is never trained on, so that the model can be tested on it (0 to 0.5)."""
    seed: int = _number(0, 0, 2**31 - 1)
    """Seed of the split into rows to train and rows held out."""
    group: str = _choice("equal", "equal", "question", "near", "source")
    """What the split never tears apart: equal rows; also rows with the same first question; also near-duplicates; or
    all rows of a file or generation (source), which tests on what comes from elsewhere."""


@dataclass(frozen=True)
class GenerateRecipe:
    """Rows written by a teacher model."""

    rows: int = _number(0, 0, 100_000)
    """How many rows to write (0 writes none)."""
    teacher: str = BUILTIN
    """Address of an OpenAI-compatible endpoint, or built-in: the small model on this machine, free and weak."""
    model: str = ""
    """The teacher's name for its model; empty takes the first one that the endpoint offers."""
    temperature: float = _number(0.9, 0.0, 2.0)
    """How freely the teacher writes (sampling temperature, 0 to 2). Lower it when rows wander off."""
    max_tokens: int = _number(400, 16, 8192)
    """Longest answer of the teacher, in tokens."""
    seed: int = _number(0, 0, 2**31 - 1)
    """Seed of the plan of rows."""


@dataclass(frozen=True)
class ModelRecipe:
    """The model that is tuned."""

    base: str = BUILTIN
    """built-in, an id on the Hugging Face Hub, or a folder relative to the recipe."""
    revision: str = ""
    """Branch, tag or commit of the Hub id; empty is its main branch."""
    adapter: str = ""
    """What was trained before on this base, to be trained further: `newest` or the id of a run in this project, a
    folder relative to the recipe, or an adapter's id on the Hugging Face Hub. Its method, rank and alpha stay.
    Empty starts afresh."""


@dataclass(frozen=True)
class TrainRecipe:
    """How it learns."""

    method: str = _choice("lora", "lora", "rslora", "dora", "qlora", "qlora-8bit", "layers", "full")
    """What of the model learns. lora: a small addition of a few MB, the model itself stays as it is; suits most.
    rslora: the same for large ranks (64 and up). dora: the same in a finer way, a little closer to full, slower. qlora
    and qlora-8bit: lora on a model that is kept at 4 or 8 bits, for large models on one NVIDIA GPU. layers: only its
    last layers, without an addition. full: every weight; wants the most memory and a tenth of the learning rate."""
    learns: str = _choice("answers", "answers", "preferences", "text")
    """What it learns from. answers: what the assistant says in each row. preferences: rows with a better and a worse
    answer, as votes under Compare make them, teach it to prefer the better ones (DPO); take a rate of 5e-5 or lower.
    text: all of each text, for a subject or a language that is new to it (continued pre-training); system prompts are
    left out."""
    beta: float = _number(0.1, 0.01, 5.0)
    """When it learns from preferences, how strongly it is held to what it was before (DPO beta, 0.01 to 5). Lower it
    to let it go further."""
    layers: int = _number(2, 1, 128)
    """With the method layers, how many of the last layers learn; the final norm learns with them."""
    epochs: float = _number(3.0, 0.1, 100.0)
    """How often every row is seen. More learns harder and, past a point, by heart."""
    steps: int = _number(0, 0, 1_000_000)
    """Stop after this many updates of the weights; 0 goes by epochs."""
    learning_rate: float = _number(5e-4, 1e-6, 1e-2)
    """How strongly it learns (learning rate, 1e-6 to 1e-2). Small models take 5e-4 to 1e-3, large ones 2e-4."""
    rank: int = _number(16, 1, 256)
    """How much the adapter can hold (LoRA rank). 16 suits most; raise it for many new facts."""
    alpha: int = _number(32, 1, 512)
    """How loud the adapter speaks (LoRA alpha); it is scaled by alpha / rank."""
    dropout: float = _number(0.0, 0.0, 0.5)
    """Share of adapter inputs dropped at random while training (LoRA dropout). 0 is fastest."""
    batch_size: int = _number(8, 1, 512)
    """Rows in one update of the weights."""
    micro_batch: int = _number(8, 1, 512)
    """Rows in memory at once, in each process; the rest of batch_size is accumulated. Lower it if memory is short."""
    max_length: int = _number(512, 32, 131_072)
    """Longest conversation in tokens; longer ones are cut at the end, and reported."""
    warmup: float = _number(0.05, 0.0, 0.5)
    """Share of the steps over which the learning rate rises from 0."""
    schedule: str = _choice("cosine", "cosine", "linear", "constant")
    """How the learning rate falls after the warm-up."""
    engine: str = _choice("trl", "trl", "unsloth")
    """What computes the training. trl: FT Flow's own way, which does all that there is to choose, on any machine.
    unsloth: the kernels of Unsloth, a package apart, for lora, rslora and qlora on an NVIDIA GPU; try it there where
    speed or memory is short."""
    precision: str = _choice("auto", "auto", "fp32", "bf16", "fp16")
    """Arithmetic of the base model. auto follows from what the machine can do, and is frozen when a job starts."""
    compiled: str = _choice("auto", "auto", "yes", "no")
    """On a CPU, whether the model's layers are compiled first (torch.compile): about half a minute at the first start,
    seconds at later ones, and every step takes about a quarter less. auto compiles for trainings of more than three
    minutes, and is frozen when a job starts."""
    evaluate_every: int = _number(0, 0, 100_000)
    """Steps between held-out losses and sample answers; 0 does it four times a run."""
    save_every: int = _number(0, 0, 100_000)
    """Steps between checkpoints, which a resume goes on from; 0 does it four times a run."""
    keep: str = _choice("best", "best", "last")
    """Which weights are kept at the end: best takes those of the lowest held-out loss (best checkpoint), last those of
    the last step. Without held-out rows it is the last step."""
    patience: int = _number(0, 0, 1000)
    """End the training once the held-out loss has not got lower for so many looks in a row (early stopping); 0 never
    ends it early."""
    mirror: tuple[str, ...] = ()
    """Where checkpoints and the result are copied to while it trains: folders relative to the recipe, or addresses
    such as s3://bucket/runs (fsspec). A copy that fails is told, and never ends the training."""
    report_to: tuple[str, ...] = ()
    """Programs for curves that get every figure and answer as well, where they are installed: tensorboard (files in
    the run's folder), trackio, wandb. Their keys stay in the environment; what fails there never ends the training."""
    probes: tuple[str, ...] = ()
    """Prompts that the model answers while it trains; empty takes two from the held-out rows."""
    seed: int = _number(0, 0, 2**31 - 1)
    """Seed of the adapter's first weights and of the order of the rows."""
    extra: dict[str, Any] = field(default_factory=dict, hash=False)
    """Any other training argument of TRL and transformers, by its own name, as in `weight_decay: 0.01`. For those who
    know what they look for; a name that does not exist is refused."""


@dataclass(frozen=True)
class ComputeRecipe:
    """Where it trains, and on how many processors at once."""

    where: str = _choice("here", "here", "hf_jobs")
    """here: on this machine. hf_jobs: on a machine of Hugging Face, rented by the minute on your account (Jobs); the
    rows travel there and the result comes back."""
    processes: int = _number(1, 1, 64)
    """How many processes share the rows of each step: one for each NVIDIA GPU. 1 suits one GPU or none."""
    strategy: str = _choice("ddp", "ddp", "fsdp")
    """How several processes share the work. ddp: each holds the whole model; the fastest where it fits. fsdp: each
    holds a part of it (FSDP2), for models too large for one GPU; with the methods lora, rslora and full."""
    hardware: str = "t4-small"
    """With hf_jobs: the kind of machine, by the name Hugging Face has for it. Train names them with their prices."""
    hours: float = _number(2.0, 0.1, 72.0)
    """With hf_jobs: the longest it may run, and so cost."""


@dataclass(frozen=True)
class CompareRecipe:
    """How before and after are asked."""

    max_tokens: int = _number(200, 1, 8192)
    """Longest answer, in tokens."""
    temperature: float = _number(0.0, 0.0, 2.0)
    """How freely both sides answer (sampling temperature); 0 always takes the likeliest token."""
    top_p: float = _number(0.95, 0.01, 1.0)
    """Sample among the likeliest tokens that together have this probability."""
    seed: int = _number(0, 0, 2**31 - 1)
    """Seed of the sampling, the same for both sides."""


@dataclass(frozen=True)
class ExportRecipe:
    """What comes out."""

    to: tuple[str, ...] = ()
    """Any of adapter, merged, gguf:F16, gguf:Q8_0, gguf:Q4_K_M, ollama, hub."""
    name: str = "model"
    """The model's name in files, in Ollama and on the Hub."""


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    data: DataRecipe = DataRecipe()
    generate: GenerateRecipe = GenerateRecipe()
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()
    compute: ComputeRecipe = ComputeRecipe()
    compare: CompareRecipe = CompareRecipe()
    export: ExportRecipe = ExportRecipe()


PRESETS: dict[str, dict[str, Any]] = {
    # A number of steps, so that it is quick whatever the dataset; the others go by passes over the rows.
    "Quick look": {"steps": 54, "learning_rate": 1.5e-3},
    "Balanced": {"epochs": 5.0, "batch_size": 4, "micro_batch": 4},
    "Thorough": {"epochs": 10.0, "learning_rate": 3e-4, "rank": 32, "alpha": 64},
}
"""By what the person wants; the values that differ from the defaults of TrainRecipe."""


def preset(name: str) -> Recipe:
    return Recipe(train=replace(TrainRecipe(), **PRESETS[name]))


@cache
def docs(cls: type) -> dict[str, str]:
    """The attribute docstrings of a recipe section: field name -> its one text."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    return {
        node.target.id: " ".join(after.value.value.split())
        for node, after in zip(body, body[1:])
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }


def load(path: Path) -> Recipe:
    """Reads a recipe file. Raises FTError that names the file and the field."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FTError(f"{path} cannot be read: {error.strerror}", "Give the path of a recipe, a YAML file.") from None
    except UnicodeDecodeError:
        raise FTError(f"{path} is not UTF-8 text", "A recipe is a YAML file.") from None
    return parse(text, where=str(path))


def parse(text: str, where: str = "the recipe") -> Recipe:
    """Strict: an unknown key, a wrong type, a value out of range and an absolute path are errors."""
    return _section(Recipe, strict_yaml(text, where), where)


def strict_yaml(text: str, where: str) -> Any:
    """The plain values of a YAML text. Raises FTError that says where it breaks, or which key stands twice."""
    try:
        return yaml.load(text, _Strict)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise FTError(
            f"{where} is not YAML{line}: {getattr(error, 'problem', error)}",
            "Look at the indentation there, and put text with : ? # or brackets into quotation marks.",
        ) from None
    except RecursionError:
        raise FTError(f"{where} is nested too deeply", "A recipe has sections, and fields in them.") from None


class _Strict(yaml.SafeLoader):
    """YAML's own rule, which PyYAML does not hold: a key stands once. It would take the last, in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in first:
                problem = f"{key.value} stands twice, first on line {first[key.value] + 1}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            first[key.value] = key.start_mark.line
        return super().construct_mapping(node, deep)


def to_dict(recipe: Any) -> dict[str, Any]:
    """Plain values, tuples as lists: what YAML and JSON hold."""
    return {f.name: _plain(getattr(recipe, f.name)) for f in fields(recipe)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_dict(value)
    return list(value) if isinstance(value, tuple) else deepcopy(value)


def from_dict(value: Any) -> Recipe:
    return _section(Recipe, value, "the recipe")


_ODD_BREAKS = "\x85\u2028\u2029"
"""Line breaks to YAML, which would be read back as a space; PyYAML escapes them only where it escapes everything."""


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, each field under its text."""
    lines: list[str] = []
    for section in fields(recipe):
        part = getattr(recipe, section.name)
        lines += [f"# {inspect.getdoc(type(part))}", f"{section.name}:"]
        for knob in fields(part):
            value = getattr(part, knob.name)
            plain = {knob.name: _plain(value)}
            lines += [f"  # {line}" for line in textwrap.wrap(docs(type(part))[knob.name], 110)]
            readable = not any(mark in json.dumps(plain, ensure_ascii=False) for mark in _ODD_BREAKS)
            entry = yaml.safe_dump(plain, allow_unicode=readable, default_flow_style=False, width=110)
            lines += [f"  {line}" if line else "" for line in entry.rstrip("\n").split("\n")]
        lines.append("")
    return "\n".join(lines)


def _section(cls: type, value: Any, where: str) -> Any:
    value = {} if value is None else value  # every field of it left out, or made a comment
    if not isinstance(value, dict):
        raise FTError(f"{where}: a list of fields is expected, not {value!r}", "One a line, as in `steps: 100`.")
    types = get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            raise FTError(
                f"{where}: unknown field {key!r}",
                f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(known)}.",
            )
    parts = {}
    for f in fields(cls):
        if f.name in value:
            place = f"{where}: {f.name}"
            if is_dataclass(types[f.name]):
                parts[f.name] = _section(types[f.name], value[f.name], place)
            else:
                parts[f.name] = _value(types[f.name], value[f.name], f.metadata, place)
    section = cls(**parts)
    if isinstance(section, DataRecipe):
        for file in section.files:
            _refuse_absolute(file, f"{where}: files")
    if isinstance(section, ModelRecipe):
        _refuse_absolute(section.base, f"{where}: base")
        _refuse_absolute(section.adapter, f"{where}: adapter")
    if isinstance(section, TrainRecipe):
        for target in section.mirror:
            _refuse_absolute(target.removeprefix("file://"), f"{where}: mirror")
    return section


def _value(kind: Any, value: Any, limits: Any, place: str) -> Any:
    if get_origin(kind) is dict:
        return _mapping(value, place)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if not isinstance(value, list) or not all(isinstance(v, item) for v in value):
            raise FTError(f"{place} is a list of text, not {value!r}", "Write it in brackets: [one, two].")
        return tuple(value)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            value = float(value)  # YAML 1.1 reads 1e-4 as text
        except ValueError:
            pass
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise FTError(f"{place} is {names[kind]}, not {value!r}", "Leave it out to have the default.")
    if "low" in limits and not limits["low"] <= value <= limits["high"]:
        raise FTError(f"{place} is {value}", f"It lies between {limits['low']:g} and {limits['high']:g}.")
    if "options" in limits and value not in limits["options"]:
        raise FTError(f"{place} is {value!r}", f"It is one of {', '.join(limits['options'])}.")
    return value


def _mapping(value: Any, place: str) -> dict[str, Any]:
    try:
        text = json.dumps(value)  # dates and sets are YAML too, and no value of a training argument
    except (TypeError, ValueError):
        raise FTError(
            f"{place}: {value!r} cannot be kept", "Give numbers, texts, true, false, lists of these."
        ) from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FTError(f"{place} is names with values, not {value!r}", "One a line, as in `weight_decay: 0.01`.")
    return json.loads(text)


def _refuse_absolute(path: str, place: str) -> None:
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute() or path.startswith("~"):
        raise FTError(f"{place}: {path} is an absolute path", "Make it relative to the recipe.")


def checked(section: Any) -> Any:
    """A section, or a whole recipe, whose values keep to the types and ranges. Raises FTError that names the field."""
    return _section(type(section), to_dict(section), "the recipe")


def rebase(recipe: Recipe, old: Path, new: Path) -> Recipe:
    """The same recipe for another folder: folders relative to `old`, of base, adapter and mirror, become relative to
    `new`."""

    def moved(path: str) -> str:
        return Path(os.path.relpath((old / path).resolve(), new.resolve())).as_posix()

    base, adapter, mirror = recipe.model.base, recipe.model.adapter, recipe.train.mirror
    if base != BUILTIN and (old / base).is_dir():
        recipe = replace(recipe, model=replace(recipe.model, base=moved(base)))
    if adapter and (old / adapter).is_dir():
        recipe = replace(recipe, model=replace(recipe.model, adapter=moved(adapter)))
    places = tuple(place if "://" in place else moved(place) for place in mirror)
    return replace(recipe, train=replace(recipe.train, mirror=places))
