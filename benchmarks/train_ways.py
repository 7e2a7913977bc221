"""One way to train, in a process of its own, for benchmarks/train.py: ROWS WAY STEPS PRECISION ADAPTER.

Prints tokens (without padding), seconds and loss of each step as its last line; unsloth, llama_factory and ft_flow
leave their adapter in the folder ADAPTER, where one is named, and the way `heldout` measures such a one. What only one
way needs is imported there: Unsloth and LLaMA-Factory run in environments that have nothing of FT Flow's.
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

    torch.manual_seed(rows["seed"])
    model = AutoModelForCausalLM.from_pretrained(rows["base"], dtype=torch.float32)
    settings: dict[str, Any] = {}
    if in_order:  # adapters as FT Flow starts them, and no warm-up or fall that differs
        model.requires_grad_(False)
        torch.manual_seed(rows["seed"])
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

    torch.manual_seed(rows["seed"])
    can = torch.cpu.get_capabilities()
    narrow = can.get("avx512_bf16") or can.get("amx_bf16")
    model = AutoModelForCausalLM.from_pretrained(rows["base"], dtype=torch.bfloat16 if narrow else torch.float32)
    model.requires_grad_(False)
    model = get_peft_model(model, LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM"))
    settings = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    return _sft(model, rows, steps, settings, None)


def unsloth(rows: dict[str, Any], steps: int, precision: str) -> list[dict[str, float]]:
    """On a CPU by its loader for every family: the kernels of the other are for GPUs.

    It refuses a machine without a GPU but for its own tests (UNSLOTH_ALLOW_CPU), and asks this one for its memory.
    """
    import os
    from types import SimpleNamespace

    os.environ |= {"UNSLOTH_ALLOW_CPU": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(Path(rows["base"]).parent / "unsloth")
    import torch

    torch.cuda.get_device_properties = lambda *_: SimpleNamespace(name="none", total_memory=2**33, major=8, minor=0)
    torch.cuda.get_device_capability = lambda *_: (8, 0)
    from unsloth import FastModel  # before transformers: it patches that

    can = torch.cpu.get_capabilities()
    narrow = can.get("avx512_bf16") or can.get("amx_bf16")
    model, _ = FastModel.from_pretrained(
        rows["base"],
        max_seq_length=512,
        load_in_4bit=False,
        dtype=torch.float32,
        device_map={"": "cpu"},
        use_gradient_checkpointing=False,
    )
    model = model.to(torch.bfloat16) if narrow else model  # without a GPU it would load fp16 for bf16
    model = FastModel.get_peft_model(
        model, **LORA, target_modules=LINEAR, bias="none", use_gradient_checkpointing=False, random_state=rows["seed"]
    )
    settings = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    found = _sft(model, rows, steps, settings, None)
    if rows["adapter"]:
        model.save_pretrained(rows["adapter"])
    return found


def llama_factory(rows: dict[str, Any], steps: int, precision: str) -> list[dict[str, float]]:
    """By its own entry point and its own trainer, with what its example recipes leave as it is."""
    import torch
    from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    can = torch.cpu.get_capabilities()
    found: list[dict[str, float]] = []
    counted: list[int] = []
    real = CustomSeq2SeqTrainer.training_step

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *more: Any, **options: Any) -> Any:
        counted.append(int(inputs["attention_mask"].sum()))
        return real(self, model, inputs, *more, **options)

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            counted.clear()
            self.began = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            found.append({"tokens": sum(counted), "seconds": time.monotonic() - self.began})

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                found[-1]["loss"] = logs["loss"]

    CustomSeq2SeqTrainer.training_step = training_step
    with tempfile.TemporaryDirectory() as folder:
        talks = [{"instruction": q, "input": "", "output": a} for q, a in rows["pairs"]]
        Path(folder, "faq.json").write_text(json.dumps(talks), encoding="utf-8")
        Path(folder, "dataset_info.json").write_text(json.dumps({"faq": {"file_name": "faq.json"}}), encoding="utf-8")
        recipe = {
            "model_name_or_path": rows["base"],
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_target": "all",
            "lora_rank": LORA["r"],
            "lora_alpha": LORA["lora_alpha"],
            "dataset_dir": folder,
            "dataset": "faq",
            "template": "smollm2",
            "cutoff_len": 512,
            "overwrite_cache": True,
            "preprocessing_num_workers": 1,
            "output_dir": rows["adapter"] or str(Path(folder) / "adapter"),
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "learning_rate": RATE,
            "lr_scheduler_type": "cosine",
            "warmup_steps": round(0.05 * steps),
            "max_steps": steps,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": bool(can.get("avx512_bf16") or can.get("amx_bf16")),
            "seed": rows["seed"],
        }
        run_exp(recipe, callbacks=[Clock()])
    return found


def compiled(rows: dict[str, Any], steps: int, precision: str) -> list[dict[str, float]]:
    """As FT Flow trains from three minutes of training on; the compiling itself is before the first step."""
    return ft_flow(rows, steps, precision, compile=True)


def ft_flow(rows: dict[str, Any], steps: int, precision: str, compile: bool = False) -> list[dict[str, float]]:
    """The trainer of a session, without what a session does around it."""
    from ft_core.train import waiting

    waiting.may_spin()
    from dataclasses import replace
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    from ft_core.recipe import TrainRecipe
    from ft_core.render import Rendered
    from ft_core.train import fast, packable, products
    from ft_core.train.compiled import compile_layers
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
    base = load_base(Path(rows["base"]), precision, device, best_attention(device, given.longest))
    packable.use(base, given.longest)
    model = learning(base, recipe)
    with tempfile.TemporaryDirectory() as folder:
        products.learn(fast.weights(model), given.longest * recipe.micro_batch, Path(folder) / "products.json")
        if compile:
            compile_layers(model, Path(folder) / "compiled")
        job = SimpleNamespace(checkpoints=Path(folder), path=Path(folder))
        watcher = _Watcher()
        with waiting.by_load():
            Trainer(model, AutoTokenizer.from_pretrained(rows["base"]), given, recipe, job, watcher).train()
    if rows["adapter"]:
        model.save_pretrained(rows["adapter"], save_embedding_layers=False)
    return watcher.steps


def heldout(rows: dict[str, Any], steps: int, precision: str) -> list[dict[str, float]]:
    """Nats a learnt token of the held-out rows, by plain transformers and peft, one row at a time, in fp32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(rows["base"], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, rows["adapter"]).eval()
    nats = tokens = 0.0
    with torch.no_grad():
        for ids, labels in zip(rows["heldout"]["ids"], rows["heldout"]["labels"]):
            learnt = sum(label != -100 for label in labels[1:])
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
            nats, tokens = nats + loss * learnt, tokens + learnt
    return [{"tokens": tokens, "seconds": 0.0, "loss": nats / tokens}]


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
            seed=rows["seed"],
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
    _, path, way, steps, precision, adapter = sys.argv
    ways = (trl, trl_in_order, tuned, unsloth, llama_factory, ft_flow, compiled, heldout)
    rows = json.loads(Path(path).read_text(encoding="utf-8")) | {"adapter": adapter}
    found = {way.__name__: way for way in ways}[way](rows, int(steps), precision)
    print("\n" + json.dumps(found))
