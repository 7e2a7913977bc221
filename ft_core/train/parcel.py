"""What travels to a rented machine and back: the job's folder, a base model of one's own, this program's source."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

from .. import recipe
from ..recipe import BUILTIN, Recipe
from ..workspace import Job, write_whole
from . import download, far

ROOT = Path(__file__).resolve().parents[2]


def pack(job: Job, wanted: Recipe, into: Path) -> None:
    """An FT_HOME in `into` in which the job trains where it is, and this program's source in source.zip."""
    folder = into / far.folder_of(job.id)
    far.collect(job, folder)
    there = wanted.model.base
    if there != BUILTIN and (source := job.path / there).is_dir():
        name = source.resolve().name
        _copy_model(source, into / "local" / far.PROJECT / "base" / name)
        there = f"../../base/{name}"
    train = replace(wanted.train, mirror=(), report_to=())  # those are told from here
    moved = replace(
        wanted, model=replace(wanted.model, base=there), train=train, compute=replace(wanted.compute, where="here")
    )
    write_whole(folder / "recipe.yaml", recipe.dump(moved))
    with zipfile.ZipFile(into / "source.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in _source():
            zipped.write(file, file.relative_to(ROOT))


def _source() -> list[Path]:
    """What runs there: the core, what it reads, its pins. No page."""
    return sorted([*ROOT.glob("ft_core/**/*.py"), *ROOT.glob("space_config/*.yaml"), ROOT / "requirements.txt"])


def _copy_model(source: Path, into: Path) -> None:
    """What a download of a model takes too."""
    into.mkdir(parents=True)
    for pattern in (*download.SMALL_FILES, "*.safetensors"):
        for file in source.glob(pattern):
            (into / file.name).symlink_to(file.resolve())


def pins(file: str, *packages: str) -> list[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.partition("==")[0] in packages]


def take(there: Path, job: Job, wanted: Recipe) -> None:
    """Puts what came back into the job's folder; checkpoints that were pruned there go here too."""
    for name in ("adapter", "checkpoints", "report"):
        if not (there / name).is_dir():
            continue
        for path in (there / name).iterdir() if name == "report" else ():  # beside what only this side knows
            os.replace(path, _made(job.path / name) / path.name)
        if name != "report":
            shutil.rmtree(job.path / name, ignore_errors=True)
            os.replace(there / name, job.path / name)
    if (there / "recipe.yaml").exists():  # what was settled on the way: the arithmetic, rows in memory at once
        settled = recipe.load(there / "recipe.yaml").train
        train = replace(settled, mirror=wanted.train.mirror, report_to=wanted.train.report_to)
        write_whole(job.recipe, recipe.dump(replace(wanted, train=train)))


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
