"""What was trained before and is trained further: an adapter, or changed weights of the model. Torch-free.

It is found, looked at and copied when the job is made: so a refusal comes before any work, and the training can be
resumed when the run that it began from was deleted.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .. import about, jobs, recipe
from ..errors import FTError
from ..recipe import BUILTIN, Recipe
from ..workspace import Job, Project, write_whole
from . import base, download, methods, models

NEWEST = "newest"
"""In a recipe: the project's newest run that left a model."""
FOLDER = "started_from"
"""In the job's folder, and so in its recipe: the copy that the training begins from."""
CHANGED = "trained.safetensors"
"""Where no adapter was trained: the weights of the base that changed, under their names there, in fp32."""
ABOUT = "trained.json"
"""Beside CHANGED: which base they belong to, and how they were trained."""
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""An adapter, as PEFT leaves it."""
_NAME = "origin.json"
"""Beside the copy: what it was called where it came from."""
_BASE_IS_LEFT_ALONE = (True, False, "gaussian", "orthogonal", "eva")
"""Other ways for an adapter to begin (PiSSA, OLoRA) take something out of the base's own weights."""
_SUFFIXES = re.compile(r"(-unsloth)?(-bnb-4bit)?$")
"""The same weights at 4 bits, under the names that these get on the Hub."""

Shapes = Mapping[str, tuple[int, ...]]
"""Of weights by name."""


@dataclass(frozen=True)
class Origin:
    """What was trained before."""

    folder: Path
    """With the files of ADAPTER, or CHANGED and ABOUT."""
    name: str
    """What people call it."""
    base: str
    """The public name of the model that it was trained on; '' where it does not say."""
    revision: str | None
    """Of that model; None where it does not say."""
    method: str
    settings: dict[str, int]
    """Fields of the recipe's train section that it decides: rank and alpha, or layers."""

    @property
    def weights(self) -> Path:
        return weights_in(self.folder)


def planned(project: Project, wanted: Recipe, recipe_folder: Path, whole: bool = True) -> tuple[Recipe, Origin | None]:
    """The recipe with the method and size of what it begins from, and that; as it is, and None, where it is nothing.

    Paths of the recipe are relative to `recipe_folder`. Unless `whole`, an adapter of the Hub is not downloaded, only
    what is written about it. Raises FTError when there is no such thing, or it was trained on another base or in a way
    that the recipe cannot go on in.
    """
    if not wanted.model.adapter:
        return wanted, None
    if wanted.compute.processes > 1 and wanted.compute.strategy == "fsdp":  # "before" is of a base in parts
        raise FTError("a model that is shared out (fsdp) cannot be trained further yet", "Set strategy to ddp.")
    origin = _found(project, wanted.model.adapter, recipe_folder, whole)
    _check_base(origin, wanted, recipe_folder)
    if origin.weights.exists():
        here = _weights_of(project, wanted, recipe_folder)
        shapes = shapes_of(origin.weights)
        if any(_place(key)[0] in here for key in shapes):  # some families call them otherwise in their files
            require_fit(shapes, here)
    own = {"method": _method(wanted.train.method, origin), **origin.settings}
    return replace(wanted, train=recipe.checked(replace(wanted.train, **own))), origin


def said(wanted: Recipe, settled: Recipe, origin: Origin) -> str:
    """What to tell about it: where it goes on from, and which settings of `wanted` are others in `settled`."""
    text = f"It goes on from {origin.name} ({methods.words(settled.train)})."
    names = ("method", *origin.settings)
    others = [name for name in names if getattr(wanted.train, name) != getattr(settled.train, name)]
    if not others:
        return text
    ours = ", ".join(f"{name} {getattr(settled.train, name)}" for name in others)
    theirs = ", ".join(f"{name} {getattr(wanted.train, name)}" for name in others)
    return f"{text} That decides {ours}; the recipe's {theirs} is not taken."


def take(origin: Origin, job: Job) -> None:
    """Copies it into the job's folder."""
    folder = job.path / FOLDER
    folder.mkdir()
    for name in (CHANGED, ABOUT) if origin.weights.name == CHANGED else ADAPTER:
        shutil.copyfile(origin.folder / name, folder / name)
    write_whole(folder / _NAME, json.dumps({"name": origin.name}, ensure_ascii=False))


def name_of(job: Job) -> str:
    """What people call what the job began from; '' for one that began afresh."""
    file = job.path / FOLDER / _NAME
    return json.loads(file.read_text(encoding="utf-8"))["name"] if file.exists() else ""


def weights_in(folder: Path) -> Path:
    """The file of what was trained."""
    return folder / (CHANGED if (folder / CHANGED).exists() else ADAPTER[1])


def shapes_of(*files: Path) -> dict[str, tuple[int, ...]]:
    """Of all weights in files of safetensors. Raises FTError for one that is damaged."""
    found = {}
    for path in files:
        try:
            with safe_open(path, "np") as file:
                found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        except SafetensorError as error:
            raise FTError(f"{path.name} cannot be read: {error}", "Train again, or restore the file.") from None
    return found


def require_fit(shapes: Shapes, here: Shapes) -> None:
    """Raises FTError unless weights of these names and shapes belong to a model that has the weights `here`.

    A linear layer's weight is (out, in) in `here`, whatever the model keeps it as.
    """
    for key, shape in shapes.items():
        name, part = _place(key)
        if part not in ("", "A.weight", "B.weight", "magnitude_vector"):
            raise _unusual(f"it holds {key.removeprefix('base_model.model.')}")
        if name not in here:
            raise for_another_base(f"there is no {name} in this one")
        theirs, ours = shape, here[name]
        if part:  # of an adapter's two factors one side is the layer's, the other its rank
            theirs, ours = (shape[1:], ours[1:]) if part[0] == "A" else (shape[:1], ours[:1])
        if theirs != ours:
            raise for_another_base(f"{name} is {shape_text(ours)} here and {shape_text(theirs)} there")


def shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def for_another_base(how: str) -> FTError:
    return FTError(f"this was trained on another base model: {how}", "Choose the base that it was trained on.")


def _found(project: Project, name: str, recipe_folder: Path, whole: bool) -> Origin:
    is_run = re.fullmatch(r"[\w-]+", name) and Job(project, name).path.is_dir()
    if name == NEWEST or is_run:
        job = jobs.trained(project, "" if name == NEWEST else name)
        called = about.read(job).name or f"the run {job.id}"
        return replace(_read(job.adapter, called), revision=recipe.load(job.recipe).model.revision)
    folder = recipe_folder / name
    if folder.is_dir():
        named = folder / _NAME
        called = json.loads(named.read_text(encoding="utf-8"))["name"] if named.exists() else folder.resolve().name
        return _read(folder, called)
    if "/" not in name or ".." in Path(name).parts:
        what = f"there is no run and no folder {name!r} to go on from"
        raise FTError(what, "`jobs` lists the runs of the project; newest is the last that left a model.")
    folder = download.snapshot(name, "", lambda share, what: None, weights=False)
    origin = _read(folder, name, weights=False)
    if whole:
        _read(download.snapshot(name, "", lambda share, what: None), name)
    return origin


def _read(folder: Path, name: str, weights: bool = True) -> Origin:
    """Raises FTError when the folder holds nothing that can be trained further."""
    if (folder / CHANGED).exists():
        written = _json(folder / ABOUT, name)
        layers = {"layers": written["layers"]} if "layers" in written else {}
        return Origin(folder, name, written["base_model_name_or_path"], None, written["method"], layers)
    config = _json(folder / ADAPTER[0], name)
    if weights and not (folder / ADAPTER[1]).exists():
        raise _no_adapter(name)
    if (kind := config.get("peft_type")) != "LORA":
        raise _unusual(f"it is {str(kind).lower()}, not LoRA")
    if (begun := config.get("init_lora_weights", True)) not in _BASE_IS_LEFT_ALONE:
        raise _unusual(f"it began as {begun}, which changes the base's own weights")
    method = "dora" if config.get("use_dora") else "rslora" if config.get("use_rslora") else "lora"
    sizes = {"rank": int(config.get("r", 8)), "alpha": int(config.get("lora_alpha", 8))}
    return Origin(folder, name, config.get("base_model_name_or_path") or "", config.get("revision"), method, sizes)


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _no_adapter(name) from None


def _check_base(origin: Origin, wanted: Recipe, recipe_folder: Path) -> None:
    """By name, whoever's copy of it; by revision where both are named."""
    ours, theirs = base.public_name(wanted.model.base, recipe_folder), origin.base
    if theirs and _known_as(ours) != _known_as(theirs):
        what = f"{origin.name} was trained on {theirs}, and the base model of this recipe is {ours}"
        raise FTError(what, "Set base to the model that it was trained on, or begin from another.")
    if origin.revision is not None and origin.revision != wanted.model.revision:
        what = f"{origin.name} was trained on the revision {origin.revision or 'main'} of {ours}"
        raise FTError(
            f"{what}, and this recipe's is {wanted.model.revision or 'main'}", f"Set revision to {origin.revision!r}."
        )


def _known_as(name: str) -> str:
    return _SUFFIXES.sub("", name.rstrip("/").rpartition("/")[2].lower())


def _weights_of(project: Project, wanted: Recipe, recipe_folder: Path) -> dict[str, tuple[int, ...]]:
    """Of the base model, by its files; none where it is not on this machine yet."""
    folder = project.workspace.builtin_model
    if wanted.model.base != BUILTIN:
        folder = models.tokenizer_folder(wanted.model.base, wanted.model.revision, project.workspace, recipe_folder)
    return shapes_of(*folder.glob("*.safetensors"))


def _method(wanted: str, origin: Origin) -> str:
    """The method by which it is trained further."""
    if origin.method in methods.WEIGHTS or wanted in methods.WEIGHTS:
        if wanted == origin.method:
            return wanted
        left = "an adapter" if methods.leaves_adapter(origin.method) else "changed weights of the model itself"
        what = f"{origin.name} is {left} ({origin.method}), and this recipe trains by the method {wanted}"
        rate = "" if methods.leaves_adapter(origin.method) else f" and learning_rate to {methods.FULL_RATE:g} or lower"
        raise FTError(what, f"Set method to {origin.method}{rate}, or begin afresh.")
    if wanted in methods.QUANTIZED:
        if origin.method == "lora":
            return wanted
        raise FTError(
            f"{origin.name} is a {origin.method} adapter, and {wanted} trains plain ones",
            f"Set method to {origin.method}, or begin afresh.",
        )
    return origin.method


def _place(key: str) -> tuple[str, str]:
    """The name of the base's weight that a tensor belongs to, and which part of an adapter it is; '' of none."""
    layer, lora, part = key.removeprefix("base_model.model.").rpartition(".lora_")
    return (f"{layer}.weight", part) if lora else (key, "")


def _no_adapter(name: str) -> FTError:
    return FTError(
        f"{name} holds nothing to train further: {' and '.join(ADAPTER)} are needed",
        "Give a run, or the folder or Hub id of an adapter; weights in other formats (pickles) are not loaded.",
    )


def _unusual(why: str) -> FTError:
    return FTError(
        f"this adapter cannot be trained further here: {why}",
        "LoRA, rsLoRA and DoRA on linear layers can. Merge it into its base elsewhere, and train that.",
    )
