"""Input tokens a second while it trains: `python -m benchmarks.train`.

The same 453 questions and answers into the built-in model by LoRA of rank 16 on all linear layers, 8 rows a step: by
TRL as it comes, by TRL tuned by hand (bf16 where the CPU multiplies it, no checkpointing, rows of like length
together), and by FT Flow. Each run is a process of its own, they take turns, and the median of the rounds counts.
Tokens are those of the rows, without padding; the first steps are left out. `--unsloth PYTHON` adds Unsloth's CPU path
in an environment of its own that has it.

`--losses N` holds FT Flow's loss of N steps against TRL's, in fp32 and in bf16, both with FT Flow's order of rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"trl": "TRL as it comes", "tuned": "TRL tuned", "unsloth": "Unsloth", "ft_flow": "FT Flow"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", help="FT_HOME, for the built-in model")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="steps of a run (default: %(default)s)")
    parser.add_argument("--skip", type=int, default=10, help="steps that do not count (default: %(default)s)")
    parser.add_argument("--losses", type=int, default=0, help="compare the losses of so many steps instead")
    parser.add_argument("--unsloth", default="", help="a Python that has unsloth")
    arguments = parser.parse_args()
    from ft_core.train.builtin import ensure_builtin
    from ft_core.workspace import Workspace

    base = ensure_builtin(Workspace.at(arguments.home), lambda share, what: None)
    with tempfile.TemporaryDirectory() as folder:
        rows = _lay_out(base, Path(folder))
        if arguments.losses:
            _compare_losses(rows, arguments.losses)
        else:
            _compare_speed(rows, arguments)


def _compare_speed(rows: Path, arguments: argparse.Namespace) -> None:
    pythons = {way: sys.executable for way in WAYS if way != "unsloth"}
    if arguments.unsloth:
        pythons["unsloth"] = arguments.unsloth
    speeds: dict[str, list[float]] = {way: [] for way in pythons}
    for _ in range(arguments.rounds):
        for way, python in pythons.items():
            steps = _ran(python, rows, way, arguments.steps, "auto")[arguments.skip :]
            speeds[way].append(sum(s["tokens"] for s in steps) / sum(s["seconds"] for s in steps))
            print(f"{WAYS[way]:18}{speeds[way][-1]:8.0f} tokens/s", flush=True)
    medians = {way: round(statistics.median(found), 1) for way, found in speeds.items()}
    ratios = {way: round(medians["ft_flow"] / speed, 2) for way, speed in medians.items() if way != "ft_flow"}
    for way, speed in medians.items():
        print(
            f"{WAYS[way]:18}{speed:8.0f} tokens/s" + (f"   FT Flow {ratios[way]:.2f} times" if way in ratios else "")
        )
    print(json.dumps({"tokens_per_s": medians, "ratio": ratios, "rounds": speeds, "steps": arguments.steps}))


def _compare_losses(rows: Path, steps: int) -> None:
    plain = [s["loss"] for s in _ran(sys.executable, rows, "trl_in_order", steps, "fp32")]
    found = {}
    for precision in ("fp32", "bf16"):
        ours = [s["loss"] for s in _ran(sys.executable, rows, "ft_flow", steps, precision)]
        found[precision] = max(abs(a / b - 1) for a, b in zip(ours, plain, strict=True))
        print(f"{precision}: largest difference of a step's loss from TRL's {found[precision]:.2%}", flush=True)
    print(json.dumps({"steps": steps, "largest_relative_difference": found}))


def _ran(python: str, rows: Path, way: str, steps: int, precision: str) -> list[dict[str, float]]:
    """Tokens, seconds and loss of each step of one run."""
    command = [python, str(ROOT / "benchmarks" / "train_ways.py"), str(rows), way, str(steps), precision]
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "TOKENIZERS_PARALLELISM": "false"}
    environment = {**os.environ, **quiet, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _lay_out(base: Path, folder: Path) -> Path:
    """The rows as text, as tokens and in FT Flow's order of steps, so that no way needs another's libraries."""
    from dataclasses import asdict, replace

    from benchmarks.demo import lay_out
    from ft_core.conversation import Conversation, Message
    from ft_core.recipe import TrainRecipe
    from ft_core.render import Renderer
    from ft_core.train.plan import micro_batches

    lay_out(folder)
    lines = [json.loads(line) for line in (folder / "zaragoza_faq_en.jsonl").read_text("utf-8").splitlines()]
    pairs = [(line["instruction"], line["output"]) for line in lines][50:]
    renderer = Renderer.of(base)
    talks = [Conversation((Message("user", q), Message("assistant", a))) for q, a in pairs]
    examples = [renderer.example(talk, 512) for talk in talks]
    recipe = replace(TrainRecipe(), epochs=10.0, batch_size=8, micro_batch=8, learning_rate=5e-4)
    lengths = [len(e.ids) for e in examples]
    order = [batch for epoch in range(10) for batch in micro_batches(lengths, recipe, epoch)]
    path = folder / "rows.json"
    written = {
        "base": str(base),
        "pairs": pairs,
        "ids": [e.ids for e in examples],
        "labels": [e.labels for e in examples],
        "order": order,
        "recipe": asdict(recipe),
    }
    path.write_text(json.dumps(written), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
