"""Training large models on one GPU: `python -m benchmarks.gpu --shape 1b --method lora [--unsloth PYTHON]`.

Tokens a second (without padding, the first steps left out) and the most memory, of models with random weights in the
shapes of Llama 3.2 1B and Llama 3.1 8B, which are made here: by TRL as it comes, by Unsloth, and by FT Flow, also with
Unsloth as its engine and with all activations kept. The same rows of 64 to 1,024 tokens, 8 a step, the later half of
each learnt. Each run is a process of its own, they take turns, and the median of the rounds counts.

`--shape tiny` runs it on a CPU, to see that it works; its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, vocab_size=49_152, tie_word_embeddings=True),
    "1b": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
               num_key_value_heads=8, vocab_size=128_256, tie_word_embeddings=True),
    "8b": dict(hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
               num_key_value_heads=8, vocab_size=128_256, tie_word_embeddings=False),
}  # fmt: skip
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0}
RATE = 2e-4
ROWS, SHORTEST, LONGEST, BATCH = 256, 64, 1024, 8
WAYS = {
    "trl": "TRL as it comes",
    "unsloth": "Unsloth",
    "ft_flow": "FT Flow",
    "ft_flow_kept": "FT Flow, activations kept",
    "ft_flow_unsloth": "FT Flow by Unsloth",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--method", choices=("lora", "qlora"), default="lora")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="steps of a run (default: %(default)s)")
    parser.add_argument("--skip", type=int, default=8, help="steps that do not count (default: %(default)s)")
    parser.add_argument("--ways", default="", help=f"only these, with commas between: {', '.join(WAYS)}")
    parser.add_argument("--unsloth", default="", help="a Python that has unsloth and what FT Flow needs")
    parser.add_argument("--home", help="FT_HOME, for the built-in model's tokenizer; the models made are kept there")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        way, model = arguments.one
        print("\n" + json.dumps(_run(way, Path(model), arguments)))
    else:
        _compare(arguments)


def _compare(arguments: argparse.Namespace) -> None:
    wanted = arguments.ways.split(",") if arguments.ways else list(WAYS)
    ways = [way for way in WAYS if way in wanted and ("unsloth" not in way or arguments.unsloth)]
    model = _model(arguments.shape, arguments.home)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way in ways:
            python = arguments.unsloth if "unsloth" in way else sys.executable
            command = [python, "-m", "benchmarks.gpu", "--one", way, str(model)]
            command += [f"--{name}={getattr(arguments, name)}" for name in ("shape", "method", "steps", "skip")]
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:  # one that does not fit, or does not load, is a result too
                print(f"{WAYS[way]:26} failed with status {done.returncode}", flush=True)
                continue
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            last = found[way][-1]
            print(f"{WAYS[way]:26}{last['tokens_per_s']:9.0f} tokens/s {last['bytes'] / 2**30:8.2f} GB", flush=True)
    medians = {
        way: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for way, runs in found.items()
        if runs
    }
    others = [medians[way] for way in ("trl", "unsloth") if way in medians]
    ratios = {}
    if others:
        best = max(others, key=lambda run: run["tokens_per_s"])
        for way, run in medians.items():
            ratios[way] = {name: round(run[name] / best[name], 3) for name in ("tokens_per_s", "bytes")}
            speed, memory = ratios[way]["tokens_per_s"], ratios[way]["bytes"]
            print(f"{WAYS[way]:26}{speed:9.2f} of the better one's tokens/s, {memory:.2f} of its memory")
    print(json.dumps({"shape": arguments.shape, "method": arguments.method, "medians": medians, "ratios": ratios}))


def _model(shape: str, home: str | None) -> Path:
    """The folder with the model of random weights, made once; under the built-in model's tokenizer."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from ft_core.train.builtin import ensure_builtin
    from ft_core.workspace import Workspace

    workspace = Workspace.at(home)
    builtin = ensure_builtin(workspace, lambda share, what: None)
    folder = workspace.cache / f"random-{shape}"
    if (folder / "tokenizer.json").exists():
        return folder
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape], max_position_embeddings=8192, bos_token_id=1, eos_token_id=2, pad_token_id=2, dtype="bfloat16"
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    for file in sorted(builtin.iterdir(), reverse=True):  # tokenizer.json last: it says that the folder is whole
        if file.name.startswith(("tokenizer", "special_tokens", "chat_template")):
            shutil.copy(file, folder / file.name)
    return folder


def _rows() -> list[dict[str, list[int]]]:
    chance = random.Random(0)
    rows = []
    for _ in range(ROWS):
        length = chance.randint(SHORTEST, LONGEST)
        ids = [chance.randint(100, 40_000) for _ in range(length)]
        rows.append({"input_ids": ids, "labels": [-100] * (length // 2) + ids[length // 2 :]})
    return rows


def _run(way: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Tokens a second and the most bytes of one way, in this process."""
    if way.startswith("ft_flow"):
        steps = _ft_flow(way, folder, arguments)
    else:
        steps = _sft(way, folder, arguments)
    import torch

    from ft_core.train import peak

    steps = steps[arguments.skip :]
    on_gpu = {"reserved": torch.cuda.max_memory_reserved()} if torch.cuda.is_available() else {}
    speed = sum(s["tokens"] for s in steps) / sum(s["seconds"] for s in steps)
    return {"tokens_per_s": speed, "bytes": peak.highest(), **on_gpu, "loss": steps[-1]["loss"]}


def _ft_flow(way: str, folder: Path, arguments: argparse.Namespace) -> list[dict[str, float]]:
    from types import SimpleNamespace

    from ft_core.recipe import TrainRecipe
    from ft_core.train import engines

    engine = "unsloth" if way == "ft_flow_unsloth" else "trl"
    engines.enter(engine, folder.parent)
    from transformers import AutoTokenizer

    from benchmarks.train_ways import _Watcher
    from ft_core.render import Rendered
    from ft_core.train import model
    from ft_core.train.rows import Rows
    from ft_core.train.trainer import Trainer

    device = model.best_device()
    precision = model.best_precision(device)
    recipe = TrainRecipe(
        engine=engine, method=arguments.method, steps=arguments.steps, learning_rate=RATE, precision=precision,
        batch_size=BATCH, micro_batch=BATCH, max_length=LONGEST, rank=LORA["r"], alpha=LORA["lora_alpha"],
        extra={"gradient_checkpointing": False} if way == "ft_flow_kept" else {},
    )  # fmt: skip
    examples = [Rendered(tuple(row["input_ids"]), tuple(row["labels"])) for row in _rows()]
    given = Rows(examples, [], list(range(len(examples))), [], [], [])
    if engine == "unsloth":
        from ft_core.train import by_unsloth

        tuned = by_unsloth.learning(by_unsloth.load_base(folder, precision, device, arguments.method), recipe)
    else:
        attention = model.best_attention(device, LONGEST)
        tuned = model.learning(model.load_base(folder, precision, device, attention, arguments.method), recipe)
    watcher = _Watcher()
    with tempfile.TemporaryDirectory() as checkpoints:
        job = SimpleNamespace(checkpoints=Path(checkpoints), path=Path(checkpoints))
        Trainer(tuned, AutoTokenizer.from_pretrained(folder), given, recipe, job, watcher).train()
    return watcher.steps


def _sft(way: str, folder: Path, arguments: argparse.Namespace) -> list[dict[str, float]]:
    """SFTTrainer's own loop, on what `way` loads."""
    lora = None
    if way == "unsloth":
        from unsloth import FastLanguageModel  # before transformers: it patches that
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Trainer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    quantized = arguments.method == "qlora"
    if way == "unsloth":
        model, _ = FastLanguageModel.from_pretrained(
            str(folder), max_seq_length=LONGEST, dtype=torch.bfloat16, load_in_4bit=quantized
        )
        model = FastLanguageModel.get_peft_model(model, **LORA, random_state=0)
    else:
        bits = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        place = {"": "cuda" if torch.cuda.is_available() else "cpu"}
        given = {"quantization_config": bits} if quantized else {}
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map=place, **given)
        lora = LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM")
    found: list[dict[str, float]] = []
    real = SFTTrainer.training_step

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *more: Any, **options: Any) -> Any:
        mask = inputs.get("attention_mask")
        found.append({"tokens": int(mask.sum() if mask is not None else inputs["input_ids"].numel())})
        return real(self, model, inputs, *more, **options)

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            found[-1]["seconds"] = time.monotonic() - self.began

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                found[-1]["loss"] = float(logs["loss"])

    SFTTrainer.training_step = training_step
    if not torch.cuda.is_available():  # its loss is a kernel for GPUs
        SFTTrainer.compute_loss = Trainer.compute_loss
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out,
            max_steps=arguments.steps,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=1,
            learning_rate=RATE,
            max_length=LONGEST,
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(_rows()),
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=lora,
            callbacks=[Clock()],
        )
        trainer.train()
    return found


if __name__ == "__main__":
    main()
