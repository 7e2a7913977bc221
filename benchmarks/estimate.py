"""What a training was said to take against what it took: `python -m benchmarks.estimate`.

Models with random weights, of six shapes (narrow and wide, shallow and deep, a vocabulary of 8,000 to 152,000, tied to
the head or not, with and without shared keys), are trained for a few steps by the real session, each in a process of
its own, on short rows and on long ones; with LoRA from pairs of answers too (preferences). The estimate is the one
that the page shows before the run; the peak is what the system says that the process had in memory.

With --time the built-in model is trained, and what was said of the time is held against the clock: by the page before
anything ran, by it once three steps were measured, and by the run itself after its third step. On a machine that has
other work the figures are those of the other work.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tokenizers import Tokenizer

from ft_core import jobs
from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import Progress, read
from ft_core.recipe import ComputeRecipe, ModelRecipe, Recipe, TrainRecipe
from ft_core.train import measure, preflight, start
from ft_core.workspace import Workspace

SHAPES = {
    "8k, narrow": dict(hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=4,
                       num_key_value_heads=4, vocab_size=8192, tie_word_embeddings=True),
    "49k, as built in": dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                             num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True),
    "32k, deep": dict(hidden_size=768, intermediate_size=2048, num_hidden_layers=24, num_attention_heads=12,
                      num_key_value_heads=12, vocab_size=32000, tie_word_embeddings=True),
    "152k, shallow": dict(hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8,
                          num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=False),
    "64k, wide": dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=8, num_attention_heads=16,
                      num_key_value_heads=16, vocab_size=64000, tie_word_embeddings=False),
    "152k, half a billion": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=14,
                                 num_attention_heads=14, num_key_value_heads=2, vocab_size=151936,
                                 tie_word_embeddings=True),
}  # fmt: skip
LENGTHS = {"short": 30, "long": 440}
"""Words of an answer, about as many tokens."""
METHODS = {
    "lora": {},
    "layers": {"method": "layers", "layers": 2},
    "full": {"method": "full"},
    "preferences": {"learns": "preferences"},
}
SHARED = {"lora shared": {}, "full shared": {"method": "full"}}
"""By two processes, each with a part of the weights (FSDP2); measured when --methods names them."""
ROWS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", help="FT_HOME, for the built-in model's tokenizer")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *SHARED])
    parser.add_argument("--lengths", nargs="+", default=list(LENGTHS), choices=list(LENGTHS))
    parser.add_argument("--steps", type=int, help="default: 4, with --time 60")
    parser.add_argument("--time", action="store_true", help="the time of one training instead of the memory of many")
    arguments = parser.parse_args()
    builtin = Workspace.at(arguments.home).builtin_model
    if not builtin.exists():
        raise FTError("the built-in model is not ready", "`python -m ft_core prepare` makes it.")
    if arguments.time:
        return _time(builtin, arguments.steps or 60)
    found = []
    print(f"{'shape':22}{'method':14}{'rows':7}{'estimate':>10}{'measured':>10}{'ratio':>7}{'seconds':>9}")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.at(folder)
        for shape in arguments.shapes:
            base = _model(shape, builtin, Path(folder) / "models" / shape.replace(" ", "-").replace(",", ""))
            for method in arguments.methods:
                for length in arguments.lengths:
                    one = _measure(workspace, base, method, length, arguments.steps or 4)
                    found.append({"shape": shape, "method": method, "rows": length, **one})
                    print(f"{shape:22}{method:14}{length:7}{one['estimate_bytes'] / 1e6:>7,.0f} MB"
                          f"{one['peak_bytes'] / 1e6:>7,.0f} MB{one['ratio']:>7.2f}"
                          f"{one['seconds']:>9.1f}", flush=True)  # fmt: skip
            shutil.rmtree(base)
    ratios = [one["ratio"] for one in found]
    print(json.dumps({"lowest": min(ratios), "highest": max(ratios), "runs": found}))


def _model(shape: str, builtin: Path, folder: Path) -> Path:
    """Random weights in bf16 under the built-in model's tokenizer, of a smaller vocabulary its first part.

    In a process of its own: this one must stay small, for its memory is the first that a child of it has.
    """
    folder.mkdir(parents=True)
    for file in builtin.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "chat_template")):
            shutil.copy(file, folder / file.name)
    size = SHAPES[shape]["vocab_size"]
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = {token: id for token, id in tokenizer["model"]["vocab"].items() if id < size}
    merges = [pair for pair in tokenizer["model"]["merges"]
              if "".join(pair if isinstance(pair, list) else pair.split(" ")) in vocabulary]  # fmt: skip
    tokenizer["model"] |= {"vocab": vocabulary, "merges": merges}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    Tokenizer.from_file(str(folder / "tokenizer.json"))
    make = (
        "import json, sys, torch\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "config = LlamaConfig(**json.loads(sys.argv[1]), max_position_embeddings=2048)\n"
        "LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[2])\n"
    )
    special = dict(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    subprocess.run([sys.executable, "-c", make, json.dumps(SHAPES[shape] | special), str(folder)], check=True)
    return folder


def _measure(workspace: Workspace, base: Path, method: str, length: str, steps: int) -> dict[str, float]:
    project = workspace.project(f"{base.name}-{method}-{length}", create=True)
    (project.path / "base").symlink_to(base)
    compute = ComputeRecipe(processes=2, strategy="fsdp") if method in SHARED else ComputeRecipe()
    train = TrainRecipe(steps=steps, micro_batch=2, batch_size=2 * compute.processes, save_every=2,
                        probes=("Where is it?",), **(METHODS | SHARED)[method])  # fmt: skip
    recipe = Recipe(model=ModelRecipe(base="base"), train=train, compute=compute)
    with Store(project.data) as store:
        store.add([_row(i, LENGTHS[length]) for i in range(ROWS)])
    said = preflight.preflight(project, recipe, look=0).estimate
    began = time.monotonic()
    job = start.start(project, recipe)
    view = jobs.wait(job)
    if view.error:
        raise FTError(f"{base.name}, {method}: {view.error}", job.log.read_text(encoding="utf-8")[-2000:])
    peak = view.result["peak_memory_bytes"]
    shutil.rmtree(job.path)
    return {
        "estimate_bytes": said.memory_bytes,
        "peak_bytes": peak,
        "ratio": round(said.memory_bytes / peak, 3),
        "parts": said.parts,
        "seconds": round(time.monotonic() - began, 1),
    }


def _time(builtin: Path, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.at(folder)
        workspace.builtin_model.symlink_to(builtin)
        project = workspace.project("time", create=True)
        with Store(project.data) as store:
            store.add([_row(i, 10 + 10 * (i % 10)) for i in range(200)])
        recipe = Recipe(train=TrainRecipe(steps=steps))
        guessed = preflight.preflight(project, recipe, look=0).estimate.seconds
        if error := jobs.wait(measure.start(project, recipe)).error:
            raise FTError(error)
        measured = preflight.preflight(project, recipe, look=0).estimate.seconds
        job = start.start(project, recipe)
        if error := jobs.wait(job).error:
            raise FTError(error)
        said = read(job.events)[0]
    began, ended = said[0].at, said[-1].at
    third = next(e for e in said if isinstance(e, Progress) and e.step == 3 and e.what == "training")
    rows = {
        "before anything ran": (guessed, ended - began),
        "once three steps were measured": (measured, ended - began),
        "by the run after step 3": (third.eta_s, ended - third.at),
    }
    print(f"{'said':32}{'estimate':>10}{'took':>10}{'ratio':>7}")
    for name, (estimate, took) in rows.items():
        print(f"{name:32}{estimate:>8.0f} s{took:>8.0f} s{estimate / took:>7.2f}")
    print(json.dumps({"ratios": {name: round(estimate / took, 3) for name, (estimate, took) in rows.items()}}))


def _row(i: int, words: int) -> Conversation:
    answer = " ".join(f"the {i} {j}th" for j in range(words // 5))
    worse = f"It may be at {answer}."  # as long, and learnt from where pairs are
    return Conversation(
        (Message("user", f"Where is {i}?"), Message("assistant", f"It is at {answer}.")), rejected=worse
    )


if __name__ == "__main__":
    main()
