"""Both answers in one batch against one after the other: `python -m benchmarks.compare`.

The peer is plain transformers and PEFT: `generate` inside `disable_adapter()`, then `generate` with the adapter on.
Both do the same greedy decoding of the same prompt, alternately in one go, each time to the same number of tokens.
bf16 says how much time one batch saves; in fp32 the tokens must be the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from ft_core.compare.engine import PRECISIONS, Engine
from ft_core.conversation import Message
from ft_core.recipe import CompareRecipe
from ft_core.train.builtin import ensure_builtin
from ft_core.workspace import Workspace

PROMPT = (Message("user", "Tell me a story about a harbour."),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", help="FT_HOME, for the built-in model")
    parser.add_argument("--tokens", type=int, default=48, help="answer length (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each, alternately (default: %(default)s)")
    arguments = parser.parse_args()
    base = ensure_builtin(Workspace.at(arguments.home), lambda share, what: None)
    logging.disable_progress_bar()
    figures = {}
    print(f"{'':6}{'one after the other':>22}{'one batch':>12}{'ratio':>8}{'same tokens':>14}")
    with tempfile.TemporaryDirectory() as folder:
        adapter = _adapter(base, Path(folder))
        for precision in ("bf16", "fp32"):
            found = figures[precision] = _measure(base, adapter, precision, arguments.tokens, arguments.rounds)
            turns, batch = f"{found['one_after_the_other_s']:.2f} s", f"{found['one_batch_s']:.2f} s"
            print(f"{precision:6}{turns:>22}{batch:>12}{found['ratio']:>8.2f}{found['same_tokens']!s:>14}")
    print(json.dumps({"tokens": arguments.tokens, "threads": torch.get_num_threads(), **figures}))


def _adapter(base: Path, folder: Path) -> Path:
    """As training makes them, rank 16 on all linear layers, with weights large enough to change the answer."""
    torch.manual_seed(0)
    settings = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), settings)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    return folder


def _measure(base: Path, adapter: Path, precision: str, tokens: int, rounds: int) -> dict[str, float | bool]:
    engine = replace(Engine.load(base, adapter, precision), stops=frozenset())  # both write to the full length
    model = AutoModelForCausalLM.from_pretrained(base, dtype=PRECISIONS[precision])
    peer = PeftModel.from_pretrained(model, adapter).to(PRECISIONS[precision]).eval()  # faster than fp32 adapters
    ids = torch.tensor([engine.renderer.prompt(PROMPT)])

    def generate() -> str:
        with torch.inference_mode():
            settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
            out = peer.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
        return engine.renderer.tokenizer.decode(out[0, ids.shape[1] :].tolist())

    def one_after_the_other() -> dict[str, str]:
        with peer.disable_adapter():
            before = generate()
        return {"before": before, "after": generate()}

    def one_batch() -> dict[str, str]:
        chats = {"before": PROMPT, "after": PROMPT}
        return {d.side: d.text for d in engine.stream(chats, CompareRecipe(max_tokens=tokens, temperature=0.0))}

    answers = [one_after_the_other(), one_batch()]  # the first of each warms up
    seconds = [_alternate(one_after_the_other, one_batch) for _ in range(rounds)]
    turns, batch = (statistics.median(times) for times in zip(*seconds))
    return {
        "one_after_the_other_s": round(turns, 3),
        "one_batch_s": round(batch, 3),
        "ratio": round(batch / turns, 3),
        "same_tokens": answers[0] == answers[1],
    }


def _alternate(*ways) -> list[float]:
    times = []
    for way in ways:
        began = time.perf_counter()
        way()
        times.append(time.perf_counter() - began)
    return times


if __name__ == "__main__":
    main()
