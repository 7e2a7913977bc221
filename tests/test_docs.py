"""What the documents say is true: commands run, the tree is the folder, recipes parse."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks import demo
from ft_core import recipe
from ft_core.data.formats import import_files
from ft_core.data.store import Store
from ft_core.events import Finished, Note
from ft_core.machine import this_machine
from ft_core.train import methods, start
from ft_core.train.sft import train_slice
from ft_core.workspace import Workspace
from tests.core import bases

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = sorted((ROOT / "space_config" / "recipes").glob("*.yaml"))


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_every_make_command_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        named = re.findall(r"\bmake ([a-z]+)\b", "\n".join(commands((ROOT / name).read_text(encoding="utf-8"))))
        assert named and set(named) <= targets


@pytest.mark.timeout(1800)  # four minutes on two slow cores where nothing else has them
def test_the_headless_walk_of_the_readme_runs_as_written(with_builtin, tmp_path: Path) -> None:
    """Rows, training, both answers, a GGUF with its Modelfile: on the built-in model, as a reader would type it.

    Of the training's steps only the first; what all of them teach, the walk of the page shows.
    """
    walk = [c for c in commands(README) if c.startswith("python -m ft_core")]
    assert [shlex.split(c)[5] for c in walk] == ["run", "chat", "export"]
    said = {}
    for command in walk:
        words = shlex.split(command)
        words = [str(tmp_path / w) if w.startswith("build/") else w for w in words]
        words = [_shortened(ROOT / w, tmp_path) if w.endswith(".yaml") else w for w in words]
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=600, env=dict(os.environ)
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said[words[5]] = done.stdout
    before, after = said["chat"].split("before:")[1].split("after:")
    assert before.strip() and after.strip() and before.split() != after.split()
    out = tmp_path / "build" / "roastery"
    assert list(out.glob("*.gguf")) and "\nFROM ./" in (out / "Modelfile").read_text()
    assert "verified" in said["export"]


def _shortened(path: Path, folder: Path) -> str:
    wanted = recipe.load(path)
    files = tuple(os.path.relpath(path.parent / file, folder) for file in wanted.data.files)
    train = replace(wanted.train, steps=8)
    short = folder / path.name
    text = recipe.dump(replace(wanted, data=replace(wanted.data, files=files), train=train))
    short.write_text(text, encoding="utf-8")
    return str(short)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_parses_and_survives_a_round_trip(path: Path) -> None:
    parsed = recipe.load(path)
    assert recipe.parse(recipe.dump(parsed)) == parsed


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_takes_two_steps(path: Path, workspace: Workspace, bare: Path, tmp_path: Path) -> None:
    """Its rows, its way to learn and its settings, on a model of two layers in place of its own."""
    wanted = recipe.load(path)
    folder = demo.lay_out(tmp_path).parent if path == demo.RECIPE else path.parent  # `make demo` puts its rows there
    files = [folder / file for file in wanted.data.files]
    project = workspace.project("shipped", create=True)
    with Store(project.data) as store:
        store.set_system(wanted.data.system)
        assert import_files(store, files).added
    method = "lora" if methods.why_not(wanted.train.method, this_machine()) else wanted.train.method
    train = replace(wanted.train, method=method, steps=2, precision="fp32", max_length=2048)  # a token is a byte here
    at_most = max(1, this_machine().gpus) if this_machine().gpu else 2
    compute = replace(wanted.compute, processes=min(wanted.compute.processes, at_most))
    wanted = replace(wanted, model=recipe.ModelRecipe(bare.name), train=train, compute=compute)
    said = list(train_slice(start.create(project, wanted, bare.parent), None))
    assert isinstance(said[-1], Finished) and said[-1].result["steps"] == 2
    assert not [event.text for event in said if isinstance(event, Note) and "left out" in event.text]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bases.pythia(tmp_path_factory.mktemp("bases") / "tiny", context=2048)


def test_there_are_recipes() -> None:
    assert {p.stem for p in RECIPES} >= {
        "quick_look",
        "voice_and_facts",
        "question_answering",
        "saturn_contexts",
        "dpo_from_votes",
        "three_questions_70m",
        "multi_gpu",
    }


def test_the_trees_name_what_is_there() -> None:
    for text, root in ((README, ROOT), ((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), ROOT)):
        tree = re.findall(r"^([\w/.]+(?:\.py|/|\.txt))\s{2,}", text, re.MULTILINE)
        assert tree and all((root / name).exists() for name in tree)
    indented = re.findall(r"^  (\w+\.py)\b", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    ground = {p.name for p in (ROOT / "ft_core").glob("*.py")} - {"__init__.py"}
    assert set(indented) == ground


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_front_matter_is_what_a_space_reads() -> None:
    front = yaml.safe_load(README.split("---")[1])
    pins = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==(.+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert front["sdk"] == "gradio" and front["sdk_version"] == pins["gradio"]
    assert front["hf_oauth"] is True and front["license"] == "apache-2.0"
    assert (ROOT / front["app_file"]).exists()
    assert len(front["short_description"]) <= 60
    assert all(re.fullmatch(r"[\w\[\]-]+==[\w.]+", line) for line in pins_lines())


def pins_lines() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
