"""Whether a GGUF is the model that was merged: it is loaded in llama.cpp and asked, before anybody gets it.

`listen` is llama.cpp's side, `ask_transformers` is what is right, once and in fp32, and `compare` judges. A greedy
answer of llama.cpp equals transformers' when each of its tokens is the likeliest one after those before it, which one
pass over the whole answer shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..generate.embedded import serve
from .trained import Trained

ANSWERS = 5
ANSWER_TOKENS = 96
"""A trained answer should be over by then."""
CHAT_TOKENS = 128
"""As many places of a chat are compared by their probabilities."""
LIKELIEST = 200
"""llama.cpp tells the probabilities of so many tokens; the others are taken together."""
TIE = 0.05
"""Two tokens whose log-probabilities differ by less are a tie: rounding decides, and both are right."""

KL_GATE = {"merged": 0.02, "F16": 1e-3}
KL_WARNING = {"Q8_0": 0.02, "Q6_K": 0.03, "Q5_K_M": 0.1, "Q4_K_M": 0.1}
"""Nats a token, on average, above which something was lost. F16 only rounds; fewer bits always lose a little."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. What fails a gate is not given out; a warning is only told."""

    name: str
    """subject: what"""
    kind: Literal["gate", "warning"]
    passed: bool
    figure: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """A greedy answer, in tokens."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    ended: bool
    """By itself, with the token or text that ends a turn."""


@dataclass(frozen=True)
class Heard:
    """What llama.cpp says with a file."""

    tokens: tuple[int, ...]
    """Of the chat."""
    prompts: tuple[str, ...]
    """As the file's own chat template writes them."""
    likeliest: tuple[tuple[tuple[int, float], ...], ...]
    """After each place of the chat but the last: tokens with their log-probabilities."""
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Reference:
    """What the merged model says, by transformers in fp32."""

    log_probs: np.ndarray
    """Of every token after each place of the chat, float32, shape (places, vocabulary)."""
    agrees: tuple[bool, ...]
    """With each of the answers that it was shown."""
    answers: tuple[Answer, ...]


def chat_text(trained: Trained) -> str:
    """A chat in which the model answers: a row of the training, a held-out one if there is one."""
    for conversation in trained.conversations:
        if any(m.role == "assistant" for m in conversation.messages):
            return trained.renderer.text(conversation.messages)
    return trained.renderer.text(trained.prompts(1)[0])


def chat_ids(trained: Trained) -> list[int]:
    """The places at which probabilities are compared."""
    return trained.renderer.ids(chat_text(trained))[:CHAT_TOKENS]


def log_probabilities(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    """Of every token after each place, float32, shape (len(ids), vocabulary)."""
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1).numpy()


def ask_transformers(folder: Path, trained: Trained, answers: tuple[Answer, ...]) -> Iterator[float]:
    """Yields the share done, returns the Reference of the model in `folder`, asked about llama.cpp's `answers`."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chat = log_probabilities(model, chat_ids(trained))
    agrees = []
    for answer in answers:
        yield (len(agrees) + 1) / (len(answers) + 1)
        agrees.append(_agrees(model, answer))
    return Reference(chat, tuple(agrees), answers)


def _agrees(model: PreTrainedModel, answer: Answer) -> bool:
    """Whether each token of the answer is the likeliest one after those before it, or ties with it."""
    start = len(answer.prompt) - 1
    after = log_probabilities(model, [*answer.prompt, *answer.ids])[start:-1]
    chosen = after[np.arange(len(answer.ids)), answer.ids]
    return bool((after.max(-1) - chosen < TIE).all())


def listen(path: Path, trained: Trained) -> Iterator[float]:
    """Loads `path` in llama.cpp. Yields the share done, returns what is Heard.

    Raises FTError when llama.cpp cannot load it.
    """
    chat, prompts = chat_ids(trained), trained.prompts(ANSWERS)
    with serve(path) as url, httpx.Client(base_url=url.removesuffix("/v1"), timeout=600) as client:
        runtime = _Runtime(client)
        tokens = runtime.tokens(trained.ends.prompt(chat_text(trained)))
        written = tuple(runtime.template([m.to_dict() for m in prompt]) for prompt in prompts)
        likeliest = []
        for place in range(1, len(chat)):
            likeliest.append(runtime.likeliest(chat[:place]))
            yield 0.5 * place / len(chat)
        answers = []
        for prompt in prompts:
            answers.append(runtime.answer(trained.renderer.prompt(prompt), trained.ends.stops))
            yield 0.5 + 0.5 * len(answers) / len(prompts)
    return Heard(tokens, written, tuple(likeliest), tuple(answers))


@dataclass(frozen=True)
class _Runtime:
    """llama.cpp's own HTTP interface."""

    client: httpx.Client

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        return self.client.post(path, json=body).raise_for_status().json()

    def tokens(self, text: str) -> tuple[int, ...]:
        """As a chat is cut into tokens, the first one that the runtime adds by itself included."""
        return tuple(self._post("/tokenize", content=text, add_special=True, parse_special=True)["tokens"])

    def template(self, messages: list[dict[str, str]]) -> str:
        return self._post("/apply-template", messages=messages)["prompt"]

    def likeliest(self, ids: list[int]) -> tuple[tuple[int, float], ...]:
        # It tells none where the next token is half a character, so the next is made to be a letter; the probabilities
        # are those from before that.
        said = self._post("/completion", prompt=ids, n_predict=1, n_probs=LIKELIEST, logit_bias=[["a", 1e4]])
        return tuple((c["id"], c["logprob"]) for c in said["completion_probabilities"][0]["top_logprobs"])

    def answer(self, prompt: list[int], stops: tuple[str, ...]) -> Answer:
        said = self._post(
            "/completion",
            prompt=prompt,
            n_predict=ANSWER_TOKENS,
            temperature=0,
            stop=list(stops),
            return_tokens=True,
        )
        return Answer(tuple(prompt), tuple(said["tokens"]), said["stop_type"] in ("eos", "word"))


def compare_merged(said: np.ndarray, reference: Reference) -> Check:
    """`said` is what the trained model says at the same places before it is merged."""
    divergence = (np.exp(reference.log_probs) * (reference.log_probs - said)).sum(-1)
    return _near("merged", "says what the trained model says", float(divergence.mean()))


def compare(type_: str, heard: Heard, trained: Trained, reference: Reference) -> list[Check]:
    """Judges a GGUF of `type_`. Only F16 must say the very same; of fewer bits the loss is told."""
    wanted = trained.renderer.ids(chat_text(trained))
    same = sum(a == b for a, b in zip(heard.tokens, wanted)) / max(len(heard.tokens), len(wanted))
    checks = [
        Check(f"{type_}: same tokens as trained (share)", "gate", list(heard.tokens) == wanted, same),
        _templates(type_, heard, trained),
        _near(type_, "says what the merged model says", _divergence(heard, reference)),
    ]
    if type_ == "F16":
        agree = sum(reference.agrees)
        name = f"F16: same greedy text as transformers (of {len(reference.agrees)} prompts)"
        checks.append(Check(name, "gate", all(reference.agrees), agree))
    return [*checks, _ends(type_, heard, reference), _sane(type_, heard, reference)]


def _near(subject: str, what: str, divergence: float) -> Check:
    name = f"{subject}: {what} (mean KL, nats a token)"
    if subject in KL_GATE:
        return Check(name, "gate", divergence < KL_GATE[subject], divergence)
    return Check(name, "warning", divergence < KL_WARNING[subject], divergence)


def _templates(type_: str, heard: Heard, trained: Trained) -> Check:
    """The chat template inside the file, as llama.cpp runs it."""
    wanted = [trained.renderer.text(prompt, answer_next=True) for prompt in trained.prompts(ANSWERS)]
    same = sum(trained.ends.prompt(a) == trained.ends.prompt(b) for a, b in zip(heard.prompts, wanted))
    name = f"{type_}: its chat template writes what was trained on (of {len(wanted)} prompts)"
    return Check(name, "gate", same == len(wanted), same)


def _divergence(heard: Heard, reference: Reference) -> float:
    """KL from the reference to the file, over the file's likeliest tokens and the rest as one."""
    found = []
    for wanted, likeliest in zip(reference.log_probs.astype(np.float64), heard.likeliest):
        ids, said = zip(*likeliest)
        p, q = wanted[list(ids)], np.array(said)
        rest_p, rest_q = (max(1e-12, 1 - np.exp(x).sum()) for x in (p, q))
        found.append((np.exp(p) * (p - q)).sum() + rest_p * np.log(rest_p / rest_q))
    return float(np.mean(found))


def _ends(type_: str, heard: Heard, reference: Reference) -> Check:
    """An answer that never ends is the commonest fault of an export. Where not even the 16-bit answers end, the model
    has not learnt to, and no file of it can."""
    ended = sum(a.ended for a in heard.answers)
    able = type_ != "F16" and any(a.ended for a in reference.answers)
    name = f"{type_}: its answers end by themselves (of {len(heard.answers)})"
    return Check(name, "gate" if able else "warning", ended > 0, ended)


def _sane(type_: str, heard: Heard, reference: Reference) -> Check:
    """Answers that turn in circles, where the 16-bit ones do not."""
    pairs = list(zip(heard.answers, reference.answers))
    sane = sum(not _circles(a) or _circles(b) for a, b in pairs)
    return Check(f"{type_}: its answers do not turn in circles (of {len(pairs)})", "gate", sane > 0, sane)


def _circles(answer: Answer) -> bool:
    tail = answer.ids[-12:]
    return not answer.ids or (not answer.ended and len(set(tail)) <= 3)
