"""One way to train, in a process of its own, for benchmarks/train.py: ROWS WAY STEPS PRECISION.

Prints tokens (without padding), seconds and loss of each step as its last line. What only one way needs is imported
there: Unsloth runs in an environment that has nothing of FT Flow's.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RATE = 5e-4


def trl(rows: dict[str, Any], steps: int, precision: str, in_order: bool = False) -> list[dict[str, float]]:
    """Conversations handed to SFTTrainer; a CPU has to be told that it is one, and that it trains in fp32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(rows["base"], dtype=torch.float32)
    settings: dict[str, Any] = {}
    if in_order:  # adapters as FT Flow starts them, and no warm-up or fall that differs
        model.requires_grad_(False)
        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM"))
        return _sft(model, rows, steps, {"lr_scheduler_type": "constant"}, None, rows["order"])
    lora = LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM")
    return _sft(model, rows, steps, settings, lora)


def trl_in_order(rows: dict[str, Any], steps: int, precision: str) -> list[dict[str, float]]:
    return trl(rows, steps, precision, in_order=True)


def tuned(rows: dict[str, Any], steps: int, precision: str) -> list[dict[str, float]]:
    """What somebody who knows the libraries would set on a CPU."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    can = torch.cpu.get_capabilities()
    narrow = can.get("avx512_bf16") or can.get("amx_bf16")
    model = AutoModelForCausalLM.from_pretrained(rows["base"], dtype=torch.bfloat16 if narrow else torch.float32)
    model.requires_grad_(False)
    model = get_peft_model(model, LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM"))
    settings = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    return _sft(model, rows, steps, settings, None)


def unsloth(rows: dict[str, Any], steps: int, precision: str) -> list[dict[str, float]]:
    from unsloth import FastLanguageModel  # first of all: it patches the others

    model, _ = FastLanguageModel.from_pretrained(rows["base"], max_seq_length=512, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(
        model, **LORA, target_modules=LINEAR, bias="none", use_gradient_checkpointing=False, random_state=0
    )
    return _sft(
        model, rows, steps, {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}, None
    )


def ft_flow(rows: dict[str, Any], steps: int, precision: str) -> list[dict[str, float]]:
    """The trainer of a session, without what a session does around it."""
    from dataclasses import replace
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    from ft_core.recipe import TrainRecipe
    from ft_core.render import Rendered
    from ft_core.train.model import best_attention, best_device, best_precision, learning, load_base, use_all_cores
    from ft_core.train.rows import Rows
    from ft_core.train.trainer import Trainer

    use_all_cores()
    device = best_device()
    fixed = precision != "auto"
    precision = precision if fixed else best_precision(device)
    recipe = replace(TrainRecipe(**rows["recipe"]), steps=steps, precision=precision)
    if fixed:
        recipe = replace(recipe, warmup=0.0, schedule="constant")
    examples = [Rendered(tuple(ids), tuple(labels)) for ids, labels in zip(rows["ids"], rows["labels"])]
    given = Rows(examples, [], list(range(len(examples))), [], [], [])
    model = learning(load_base(Path(rows["base"]), precision, device, best_attention(device, given.longest)), recipe)
    with tempfile.TemporaryDirectory() as folder:
        job = SimpleNamespace(checkpoints=Path(folder), path=Path(folder))
        watcher = _Watcher()
        Trainer(model, AutoTokenizer.from_pretrained(rows["base"]), given, recipe, job, watcher).train()
    return watcher.steps


class _Watcher:
    """Follows an FT Flow trainer and asks for nothing."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        self.steps.append({name: figures[name] for name in ("tokens", "seconds", "loss")})

    def look(self, step: int) -> None:
        pass

    def must_end(self, step: int) -> bool:
        return False

    def saved(self, checkpoint: Path) -> None:
        pass

    def named(self, indices: list[int]) -> list[int]:
        return indices


def _sft(
    model: Any, rows: dict[str, Any], steps: int, settings: dict[str, Any], lora: Any, order: Any = None
) -> list[dict[str, float]]:
    """SFTTrainer's own loop over `rows`; with `order` its steps have just these rows.

    Its fused loss is a Triton kernel, which torch for CPUs comes without; the loss is that of transformers instead.
    """
    from datasets import Dataset
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer, Trainer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    found: list[dict[str, float]] = []

    class Counting(SFTTrainer):
        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            self.tokens = (
                int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else inputs["input_ids"].numel()
            )
            return super().training_step(model, inputs, num_items_in_batch)

        def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **options: Any) -> Any:
            return Trainer.compute_loss(self, model, inputs, *more, **options)

        def get_train_dataloader(self) -> DataLoader:
            if order is None:
                return super().get_train_dataloader()
            return DataLoader(self.train_dataset, batch_sampler=order, collate_fn=self.data_collator)

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            found.append({"tokens": trainer.tokens, "seconds": time.monotonic() - self.began})

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                found[-1]["loss"] = logs["loss"]

    talks = [
        {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}]}
        for q, a in rows["pairs"]
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=8,
            learning_rate=RATE,
            max_length=512,
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
            **settings,
        )
        trainer = Counting(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(talks),
            processing_class=AutoTokenizer.from_pretrained(rows["base"]),
            peft_config=lora,
            callbacks=[Clock()],
        )
        trainer.train()
    return found


if __name__ == "__main__":
    _, path, way, steps, precision = sys.argv
    ways = {"trl": trl, "trl_in_order": trl_in_order, "tuned": tuned, "unsloth": unsloth, "ft_flow": ft_flow}
    found = ways[way](json.loads(Path(path).read_text(encoding="utf-8")), int(steps), precision)
    print("\n" + json.dumps(found))
