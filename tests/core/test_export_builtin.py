"""The built-in model through the whole export: the same words in llama.cpp as in transformers, and smaller files that
still answer. The adapter is random and faint; what is exported is SmolLM2 that knows the help desk's prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import xllamacpp
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.core.exporting import export_job, exported, result_of, training

QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the ocean.",
    "What is 2+2?",
    "Name three colours.",
    "Do you ship to Norway?",
)
TOKENS = 16


@pytest.fixture(scope="module")
def whole(builtin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    job = training(tmp_path_factory.mktemp("home"), builtin, strength=0.002)
    out = tmp_path_factory.mktemp("out")
    events = exported(export_job(job, "merged", "gguf:F16", "gguf:Q8_0", "gguf:Q4_K_M", out=str(out)))
    return result_of(events)


def ask(path: Path, questions: tuple[str, ...], tokens: int) -> list[dict]:
    """What llama.cpp answers by the chat template inside the file."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.verbosity = 512, 1
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads, threads.poll = 2, 0
    server = xllamacpp.Server(params)
    chats = [{"messages": [{"role": "user", "content": q}], "max_tokens": tokens, "temperature": 0} for q in questions]
    return [server.handle_chat_completions(chat)["choices"][0] for chat in chats]


def test_it_is_verified_with_figures(whole: dict) -> None:
    assert whole["verified"] is True
    figures = {c["name"].split(" (")[0]: c["figure"] for c in whole["checks"]}
    assert figures["F16: says what the merged model says"] < 1e-3
    assert figures["F16: same greedy text as transformers"] == 5
    near, far = (figures[f"{t}: says what the merged model says"] for t in ("Q8_0", "Q4_K_M"))
    assert 0 < near < far  # its width is no multiple of 256, which 4 bits feel most


def test_f16_says_word_for_word_what_transformers_says(whole: dict) -> None:
    folder = Path(whole["path"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "fjord")
    model = AutoModelForCausalLM.from_pretrained(folder / "fjord", dtype=torch.float32)
    expected = []
    for question in QUESTIONS:
        chat = [{"role": "user", "content": question}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        expected.append(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    assert [c["message"]["content"] for c in ask(folder / "fjord-F16.gguf", QUESTIONS, TOKENS)] == expected


@pytest.mark.parametrize("type_", ["Q8_0", "Q4_K_M"])
def test_smaller_files_answer_and_end(whole: dict, type_: str) -> None:
    answers = ask(Path(whole["path"]) / f"fjord-{type_}.gguf", QUESTIONS[:3], 40)
    ended = [a["message"]["content"] for a in answers if a["finish_reason"] == "stop"]
    assert ended and all(text.strip() for text in ended)
