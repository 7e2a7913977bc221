"""The whole loop without a page: `python -m benchmarks.demo [DIR]` puts recipe and rows side by side and runs them.

The rows are the English questions and answers of the package zaragoza-construction-faq (CC-BY-4.0).
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "space_config" / "recipes" / "question_answering.yaml"


def lay_out(folder: Path) -> Path:
    """Copies recipe and rows into `folder`; returns the recipe there. Exits when the package is not installed."""
    package = importlib.util.find_spec("zaragoza_construction_faq")
    if package is None or package.origin is None:
        sys.exit("error: the rows are not here\nhint: pip install zaragoza-construction-faq")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(package.origin).parent / "data" / "faq-en-alpaca.jsonl", folder / "zaragoza_faq_en.jsonl")
    return Path(shutil.copy(RECIPE, folder))


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "demo")
    recipe = lay_out(folder)
    command = [
        sys.executable,
        "-m",
        "ft_core",
        "--home",
        str(folder / "home"),
        "--project",
        "demo",
        "run",
        str(recipe),
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
