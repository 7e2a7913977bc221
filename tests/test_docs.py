"""What the documents say is true: commands run, the tree is the folder, recipes parse."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ft_core import recipe

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


def test_the_headless_walk_of_the_readme_runs_as_written(with_builtin, tmp_path: Path) -> None:
    """Rows, training, both answers, a GGUF with its Modelfile: on the built-in model, as a reader would type it."""
    walk = [c for c in commands(README) if c.startswith("python -m ft_core")]
    assert [shlex.split(c)[5] for c in walk] == ["run", "chat", "export"]
    said = {}
    for command in walk:
        words = shlex.split(command)
        words = [str(tmp_path / w) if w.startswith("build/") else w for w in words]
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=600, env=dict(os.environ)
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said[words[5]] = done.stdout
    before, after = said["chat"].split("after:")
    assert "four days" in after and "four days" not in before
    out = tmp_path / "build" / "roastery"
    assert list(out.glob("*.gguf")) and "\nFROM ./" in (out / "Modelfile").read_text()
    assert "verified" in said["export"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_parses_and_survives_a_round_trip(path: Path) -> None:
    parsed = recipe.load(path)
    assert recipe.parse(recipe.dump(parsed)) == parsed


def test_there_are_recipes() -> None:
    assert {"quick_look", "question_answering"} <= {p.stem for p in RECIPES}


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
