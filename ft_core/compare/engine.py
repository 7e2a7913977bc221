"""Before and after at once, token by token: LoRA in one batch over one base, the adapter on the tuned row alone.

What cannot be mixed into a batch (DoRA, changed weights) is a second model, read in turn with the base. The sides
get the same template, sampling and seed. In fp32 each answers token for token as it would alone; in bf16 the answers
of one batch may part after some tokens, because a matrix product of another height rounds in another order.

An engine is for one thread at a time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.utils import logging as transformers_logging

from .. import jobs, recipe
from ..conversation import Conversation, Message
from ..errors import FTError
from ..recipe import CompareRecipe
from ..render import IGNORED, Renderer
from ..train.base import of_trained
from ..workspace import Job
from . import apart
from .exchange import SIDES, Chats, Delta, Proof, Side
from .mixed import Tuned, attach, check

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SAY_EVERY_S = 0.08
"""A side speaks at most this often: about twelve times a second is as fast as eyes follow."""

_PROBE = (Message("user", "What can you help me with, and what should I know about it first?"),)
_PROBE_STEPS = 8


@dataclass(frozen=True)
class Engine:
    """A base model in memory with an adapter that can be left out row by row, or with the tuned model beside it."""

    model: PreTrainedModel
    renderer: Renderer
    tuned: Tuned | PreTrainedModel
    """The rows that the adapter in `model` answers for, or a model of its own for the tuned side."""
    base: Path
    precision: str
    clean: torch.Tensor
    """Logits of the probe [steps, vocabulary] by the base as it came from disk, before what was trained was read."""
    stops: frozenset[int]
    """Tokens that end an answer."""

    @classmethod
    def load(cls, base: Path, adapter: Path, precision: str) -> Engine:
        """Reads a base model's folder and that of what was trained on it. `precision` is one of PRECISIONS.

        Raises FTError when the base is gone, or what was trained is broken, for another base, or of a kind that takes
        "before" away.
        """
        if not (base / "config.json").exists():
            raise FTError(
                f"the base model is gone: there is no {base.name} where it was when this was trained",
                "Put it back, or train again.",
            )
        transformers_logging.disable_progress_bar()
        renderer = Renderer.of(base)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(base, dtype=PRECISIONS[precision], local_files_only=True)
        # As PEFT leaves it, too: torch multiplies in another order for weights that want a gradient.
        model.to(device).eval().requires_grad_(False)
        check(model, adapter)
        own = apart.needs_own_model(adapter)
        # As many rows as the side will have: so it is the same arithmetic, to the last bit.
        opening, rest = _probe_ids(renderer)
        clean = _probe(_Batch(model, [opening] * (1 if own else 2)), rest)[0]
        tuned = apart.tuned(model, adapter) if own else attach(model, adapter)
        return cls(model, renderer, tuned, base, precision, clean, _stops(model, renderer))

    @classmethod
    def of(cls, job: Job, precision: str = "auto") -> Engine:
        """The models of a training job; `auto` is the precision that it was trained in. Raises FTError as `load`."""
        result, wanted = jobs.view(job).result, recipe.load(job.recipe)
        if not result.get("base"):
            raise FTError(f"job {job.id} has no trained model yet", "Wait until it is done, or resume it.")
        if precision == "auto":
            trained_in = wanted.train.precision
            precision = trained_in if trained_in in PRECISIONS else "fp32"
        return cls.load(of_trained(result, wanted.model, job), job.adapter, precision)

    def stream(self, chats: Chats, sampling: CompareRecipe, stop: Event | None = None) -> Iterator[Delta]:
        """The answers of the sides in `chats`, as they come; each side's last delta is done.

        A side that ends early leaves the batch. Between tokens `stop` is looked at: once it is set, every side is done
        with what it has. Raises FTError when the template refuses the turns or they are longer than the model reads.
        """
        sides = [side for side in SIDES if side in chats]
        prompts = [self.renderer.prompt(chats[side]) for side in sides]
        longest = min(sampling.max_tokens, self._room(prompts))
        noise = torch.Generator(self.model.device).manual_seed(sampling.seed)
        answers = [_Answer(side, self.renderer) for side in sides]
        rows = self._rows(prompts, sides.count("before"))
        logits = rows.begin()
        said = 0.0
        while answers:
            tokens = _pick(logits, sampling, noise)
            speak = time.monotonic() - said >= SAY_EVERY_S
            going = []
            for row, (answer, token) in enumerate(zip(answers, tokens.tolist())):
                if token not in self.stops:
                    answer.take(token)
                done = token in self.stops or len(answer.ids) >= longest or (stop is not None and stop.is_set())
                if done or speak:
                    yield answer.so_far(done)
                if not done:
                    going.append(row)
            if speak:
                said = time.monotonic()
            if len(going) < len(answers):
                rows.keep(going)
                answers = [answers[row] for row in going]
                tokens = tokens[going]
            if answers:
                logits = rows.read(tokens[:, None])

    def proof(self) -> Proof:
        """Reads a fixed prompt once more, now for both sides, token by token at its end as an answer would.

        What the before rows say is held against what the untouched base said right after it was read from disk.
        """
        opening, rest = _probe_ids(self.renderer)
        before, after = _probe(self._rows([opening] * 2, 1), rest)
        return Proof(
            max_logit_difference=(before - self.clean).abs().max().item(),
            base_fingerprint=base_fingerprint(self.base),
            after_difference=(after - self.clean).abs().max().item(),
            precision=self.precision,
        )

    def _rows(self, prompts: list[list[int]], befores: int) -> _Mixed | _InTurn:
        """The prompts, those of the before side first, to be read by the models that answer them."""
        if isinstance(self.tuned, Tuned):
            return _Mixed(self.model, prompts, self.tuned, befores)
        return _InTurn((self.model, self.tuned), prompts, befores)

    def _room(self, prompts: list[list[int]]) -> int:
        """How many tokens the model can still write after the longest prompt."""
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", 2**31)
        longest = max(map(len, prompts))
        if longest >= context:
            raise FTError(
                f"the chat has {longest} tokens, and this model reads {context}", "Clear the chat, or ask shorter."
            )
        return context - longest


def ask_once(
    job: Job, prompt: str, system: str, sides: tuple[Side, ...], sampling: CompareRecipe, precision: str = "auto"
) -> tuple[dict[Side, str], Proof]:
    """One question to the models of a training job: the answers by side, and the proof that before is before."""
    engine = Engine.of(job, precision)
    messages = Conversation((Message("user", prompt),)).with_system(system).messages
    answers: dict[Side, str] = {}
    for delta in engine.stream({side: messages for side in sides}, sampling):
        answers[delta.side] = delta.text
    return {side: answers[side] for side in sides}, engine.proof()


def base_fingerprint(folder: Path) -> str:
    """sha256, in hex, over the bytes of all *.safetensors files in `folder`, one after the other in order of name.

    So it is what `cat *.safetensors | sha256sum` prints there (in the C locale).
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors"), key=lambda p: p.name):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class _Batch:
    """The rows of one batch while they are answered: prompts padded on the left, and the cache of what was read."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]]):
        width = max(map(len, prompts))
        self.model = model
        self.prompt = self._tensor([[0] * (width - len(p)) + p for p in prompts])
        self.mask = self._tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        self.padded = any(len(p) < width for p in prompts)
        self.cache = DynamicCache(config=model.config)

    def __len__(self) -> int:
        return len(self.mask)

    def begin(self) -> torch.Tensor:
        """Reads the prompts; gives what `read` does."""
        return self.read(self.prompt)

    @torch.inference_mode()
    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """Reads `ids` [rows, tokens] after what was read before; gives fp32 logits [rows, vocabulary] of the next."""
        if self.cache.get_seq_length():
            self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model(
            input_ids=ids,
            attention_mask=self.mask if self.padded else None,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()

    def keep(self, rows: list[int]) -> None:
        """Goes on with these rows alone."""
        if rows:
            self.cache.batch_select_indices(self._tensor(rows))
            self.mask = self.mask[rows]

    def _tensor(self, values: list) -> torch.Tensor:
        return torch.tensor(values, device=self.model.device)


class _Mixed(_Batch):
    """A batch whose first rows the base answers, and the others the adapter in it."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], tuned: Tuned, befores: int):
        super().__init__(model, prompts)
        self.tuned = tuned
        self.befores = befores

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        self.tuned.first = self.befores
        return super().read(ids)

    def keep(self, rows: list[int]) -> None:
        self.befores = sum(row < self.befores for row in rows)
        super().keep(rows)


class _InTurn:
    """The same of two models, each with a batch of its own: one step of the one, then one of the other."""

    def __init__(self, models: tuple[PreTrainedModel, PreTrainedModel], prompts: list[list[int]], befores: int):
        sides = zip(models, (prompts[:befores], prompts[befores:]))
        self.batches = [_Batch(model, some) for model, some in sides if some]

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    def begin(self) -> torch.Tensor:
        return torch.cat([batch.begin() for batch in self.batches])

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        parts = ids.split([len(batch) for batch in self.batches])
        return torch.cat([batch.read(part) for batch, part in zip(self.batches, parts)])

    def keep(self, rows: list[int]) -> None:
        going, start = [], 0
        for batch in self.batches:
            end = start + len(batch)
            if mine := [row - start for row in rows if start <= row < end]:
                batch.keep(mine)
                going.append(batch)
            start = end
        self.batches = going


@dataclass
class _Answer:
    """What one side has said."""

    side: Side
    renderer: Renderer
    ids: list[int] = field(default_factory=list)
    began: float = 0.0

    def take(self, token: int) -> None:
        self.began = self.began or time.monotonic()
        self.ids.append(token)

    def so_far(self, done: bool) -> Delta:
        text = self.renderer.tokenizer.decode(self.ids, skip_special_tokens=True)
        if not done:
            text = text.rstrip("\ufffd")  # a character whose last bytes are still to come
        seconds = time.monotonic() - self.began
        rate = (len(self.ids) - 1) / seconds if len(self.ids) > 1 else 0.0
        return Delta(self.side, text, len(self.ids), round(rate, 1), done)


@torch.inference_mode()
def _pick(logits: torch.Tensor, sampling: CompareRecipe, noise: torch.Generator) -> torch.Tensor:
    """The next token [rows] of each row by logits [rows, vocabulary].

    Sampling is a race: each token's probability against one exponential draw a step that all rows share, and the first
    wins. So equal logits give equal tokens on both sides, and a row's tokens do not depend on who else is asked.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ordered, index = probabilities.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
        probabilities = probabilities.scatter(-1, index, ordered.masked_fill(beyond, 0.0))
    race = torch.empty_like(probabilities[0]).exponential_(generator=noise)
    return (probabilities / race).argmax(-1)


def _probe_ids(renderer: Renderer) -> tuple[list[int], list[int]]:
    """A fixed prompt: what is read at once, and its last tokens, which are read one by one."""
    ids = renderer.prompt(_PROBE)
    return ids[:-_PROBE_STEPS], ids[-_PROBE_STEPS:]


def _probe(rows: _Batch | _InTurn, rest: list[int]) -> torch.Tensor:
    """Logits [row, step, vocabulary] of rows that hold the probe's opening, and of `rest` token by token."""
    steps = [rows.begin()]
    for token in rest:
        steps.append(rows.read(torch.full((len(rows), 1), token, device=steps[0].device)))
    return torch.stack(steps, dim=1)


def _stops(model: PreTrainedModel, renderer: Renderer) -> frozenset[int]:
    """The tokens that the model calls its last, and the one with which the template ends the assistant's turn."""
    named = model.generation_config.eos_token_id
    eos = set(named if isinstance(named, list) else [] if named is None else [named])
    if (token := renderer.tokenizer.token_to_id(renderer.special.get("eos_token", ""))) is not None:
        eos.add(token)
    example = renderer.example(Conversation((Message("user", "Hello"), Message("assistant", "Good day"))))
    special = {id for id, token in renderer.tokenizer.get_added_tokens_decoder().items() if token.special}
    return frozenset(eos | {label for label in example.labels if label != IGNORED and label in special})
