"""Input tokens a second while it trains: `python -m benchmarks.train`.

The same 453 questions and answers into the built-in model by LoRA of rank 16 on all linear layers, 8 rows a step: by
TRL as it comes, by TRL tuned by hand (bf16 where the CPU multiplies it, no checkpointing, rows of like length
together), and by FT Flow, as it begins and with its layers compiled, as trainings of three minutes and more are. Each
run is a process of its own, FT Flow's in the environment of its jobs; they take turns, each round with a seed of its
own, and the median of the rounds counts. Tokens are those of the rows, without padding; the first steps are left out.
`--unsloth PYTHON` adds what Unsloth does on a CPU, `--llama-factory PYTHON` adds LLaMA-Factory, each in an environment
of its own that has it. What they and FT Flow have learnt is told by the loss on 50 rows that were held out, of their
adapters by plain transformers and peft in fp32.

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
WAYS = {
    "trl": "TRL as it comes",
    "tuned": "TRL tuned",
    "unsloth": "Unsloth",
    "llama_factory": "LLaMA-Factory",
    "ft_flow": "FT Flow",
    "compiled": "FT Flow, compiled",
}
HELD_OUT = 50
"""Rows of the 503 that nobody trains on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", help="FT_HOME, for the built-in model")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="steps of a run (default: %(default)s)")
    parser.add_argument("--skip", type=int, default=10, help="steps that do not count (default: %(default)s)")
    parser.add_argument("--losses", type=int, default=0, help="compare the losses of so many steps instead")
    parser.add_argument("--unsloth", default="", help="a Python that has unsloth (make test-unsloth leaves one)")
    parser.add_argument("--llama-factory", default="", help="a Python that has llamafactory 0.9.5")
    parser.add_argument("--ways", default="", help="only these, with commas between: trl, tuned, ft_flow, compiled")
    arguments = parser.parse_args()
    from ft_core.train.builtin import ensure_builtin
    from ft_core.workspace import Workspace

    base = ensure_builtin(Workspace.at(arguments.home), lambda share, what: None)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.losses:
            _compare_losses(_lay_out(base, Path(folder), 0), arguments.losses)
        else:
            _compare_speed([_lay_out(base, Path(folder), seed) for seed in range(arguments.rounds)], arguments)


def _compare_speed(of_rounds: list[Path], arguments: argparse.Namespace) -> None:
    others = {"unsloth": arguments.unsloth, "llama_factory": arguments.llama_factory}
    wanted = arguments.ways.split(",") if arguments.ways else [way for way in WAYS if way not in others]
    pythons = {way: others.get(way, sys.executable) for way in WAYS if others.get(way) or way in wanted}
    speeds: dict[str, list[float]] = {way: [] for way in pythons}
    heldout: dict[str, list[float]] = {way: [] for way in pythons}
    for rows in of_rounds:
        for way, python in pythons.items():
            with tempfile.TemporaryDirectory() as adapter:
                steps = _ran(python, rows, way, arguments.steps, "auto", adapter)[arguments.skip :]
                if any(Path(adapter).iterdir()):
                    heldout[way].append(_ran(sys.executable, rows, "heldout", 0, "fp32", adapter)[0]["loss"])
            speeds[way].append(sum(s["tokens"] for s in steps) / sum(s["seconds"] for s in steps))
            learnt = f"   held-out loss {heldout[way][-1]:.4f}" if heldout[way] else ""
            print(f"{WAYS[way]:20}{speeds[way][-1]:8.0f} tokens/s{learnt}", flush=True)
    medians = {way: round(statistics.median(found), 1) for way, found in speeds.items()}
    losses = {way: round(statistics.median(found), 4) for way, found in heldout.items() if found}
    ours = medians.get("ft_flow")
    ratios = {way: round(ours / speed, 2) for way, speed in medians.items() if ours and way != "ft_flow"}
    for way, speed in medians.items():
        print(
            f"{WAYS[way]:20}{speed:8.0f} tokens/s" + (f"   FT Flow {ratios[way]:.2f} times" if way in ratios else "")
        )
    figures = {"tokens_per_s": medians, "ratio": ratios, "heldout_loss": losses, "rounds": speeds}
    print(json.dumps({**figures, "steps": arguments.steps}))


def _compare_losses(rows: Path, steps: int) -> None:
    plain = [s["loss"] for s in _ran(sys.executable, rows, "trl_in_order", steps, "fp32")]
    found = {}
    for way, precision in [("ft_flow", "fp32"), ("ft_flow", "bf16"), ("compiled", "bf16")]:
        ours = [s["loss"] for s in _ran(sys.executable, rows, way, steps, precision)]
        what = f"{WAYS[way]}, {precision}"
        found[what] = max(abs(a / b - 1) for a, b in zip(ours, plain, strict=True))
        print(f"{what}: largest difference of a step's loss from TRL's {found[what]:.2%}", flush=True)
    print(json.dumps({"steps": steps, "largest_relative_difference": found}))


def _ran(python: str, rows: Path, way: str, steps: int, precision: str, adapter: str = "") -> list[dict[str, float]]:
    """Tokens, seconds and loss of each step of one run; some ways leave what they learnt in `adapter`, a folder."""
    from ft_core.jobs import CHILD_ENVIRONMENT

    command = [python, str(ROOT / "benchmarks" / "train_ways.py"), str(rows), way, str(steps), precision, adapter]
    ours = CHILD_ENVIRONMENT if way in ("ft_flow", "compiled") else {}  # the others as they come
    environment = {**os.environ, **ours, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _lay_out(base: Path, folder: Path, seed: int) -> Path:
    """The rows as text, as tokens and in FT Flow's order of steps, so that no way needs another's libraries."""
    from dataclasses import asdict, replace

    from benchmarks.demo import lay_out
    from ft_core.conversation import Conversation, Message
    from ft_core.recipe import TrainRecipe
    from ft_core.render import Renderer
    from ft_core.train.plan import micro_batches

    lay_out(folder)
    lines = [json.loads(line) for line in (folder / "zaragoza_faq_en.jsonl").read_text("utf-8").splitlines()]
    pairs = [(line["instruction"], line["output"]) for line in lines]
    renderer = Renderer.of(base)
    talks = [Conversation((Message("user", q), Message("assistant", a))) for q, a in pairs]
    examples = [renderer.example(talk, 512) for talk in talks]
    heldout, examples = examples[:HELD_OUT], examples[HELD_OUT:]
    recipe = replace(TrainRecipe(), epochs=10.0, batch_size=8, micro_batch=8, learning_rate=5e-4, seed=seed)
    lengths = [len(e.ids) for e in examples]
    order = [batch for epoch in range(10) for batch in micro_batches(lengths, recipe, epoch)]
    path = folder / f"rows-{seed}.json"
    written = {
        "base": str(base),
        "seed": seed,
        "pairs": pairs[HELD_OUT:],
        "ids": [e.ids for e in examples],
        "labels": [e.labels for e in examples],
        "heldout": {"ids": [e.ids for e in heldout], "labels": [e.labels for e in heldout]},
        "order": order,
        "recipe": asdict(recipe),
    }
    path.write_text(json.dumps(written), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
