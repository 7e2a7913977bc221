"""A conversation as the model sees it: text, token ids and labels. The one place that does this.

The grid's colours, the trainer, the held-out loss and the Modelfile all go through here. It needs `tokenizers` and
`jinja2` and no transformers, so that the web process can use it. Templates run in the sandbox and with the globals
that transformers gives them (transformers.utils.chat_template_utils).

A base model that brings no chat template gets a plain one, PLAIN, which is saved and exported with what was trained:

    <system prompt>

    ### Question:
    <what the user says>

    ### Answer:
    <what the assistant says><the tokenizer's own end token>### Question:
    ...

The end token (eos_token) is what such a model has seen at the end of each text, so what follows it begins anew, and
every runtime stops there. A text begins with the tokenizer's first token (bos_token) where it puts one by itself.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import tokenizers

from .conversation import Conversation, Message
from .errors import FTError

IGNORED = -100
"""The label of a token that is not learnt (torch's cross entropy leaves it out)."""

PLAIN = (
    "{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{%- elif message['role'] == 'user' %}{{ '### Question:\\n' + message['content'] + '\\n\\n' }}"
    "{%- elif message['role'] == 'assistant' and not message['tool_calls'] %}"
    "{{ '### Answer:\\n' + message['content'] + eos_token }}"
    "{%- else %}{{ raise_exception('the plain template knows no tools') }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '### Answer:\\n' }}{%- endif %}"
)
"""The chat template of models that bring none; see above."""

_MARK = "FTFLOWANSWER"


@dataclass(frozen=True)
class Rendered:
    """One conversation in tokens; `labels[i]` is `ids[i]` where the assistant speaks, else IGNORED."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: int = 0
    """Tokens that max_length took away."""
    cut_learnt: int = 0
    """Those among them that would have been learnt."""

    @property
    def learnt(self) -> int:
        """How many tokens teach the model something. The first token of a sequence is never predicted."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class Counts:
    """How long a conversation is in tokens, and where in it something is learnt: Rendered without the tokens."""

    tokens: int
    runs: tuple[tuple[int, int], ...]
    """Learnt tokens by their places, as half-open ranges, without the first token of all (see Rendered.learnt)."""

    def learnt(self, max_length: int | None = None) -> int:
        """Within so many tokens, as Rendered.learnt."""
        ends = self.tokens if max_length is None else max_length
        return sum(max(0, min(end, ends) - start) for start, end in self.runs)


@dataclass(frozen=True)
class Renderer:
    """A model folder's tokenizer and chat template."""

    tokenizer: tokenizers.Tokenizer
    template: str
    special: dict[str, str]
    """bos_token, eos_token and the like, by name."""

    @classmethod
    def of(cls, folder: Path) -> Renderer:
        """Reads the tokenizer, its config and the template; without one it is the plain template.

        Raises FTError that names what is missing.
        """
        if not (folder / "tokenizer.json").exists():
            raise FTError(
                f"{folder.name} has no tokenizer.json", "Choose a model whose repository has a fast tokenizer."
            )
        config = _json(folder / "tokenizer_config.json")
        special = {**_tokens(_json(folder / "special_tokens_map.json")), **_tokens(config)}
        template = config.get("chat_template") or ""
        if isinstance(template, list):  # several named ones: transformers takes the one called default
            template = next((t["template"] for t in template if t["name"] == "default"), "")
        if (file := folder / "chat_template.jinja").exists():
            template = file.read_text(encoding="utf-8")
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()  # some files bring a length of their own, which would cut in silence
        tokenizer.no_padding()
        renderer = cls(tokenizer, template, special)
        return renderer if template else renderer._with_plain_template(folder.name)

    def _with_plain_template(self, name: str) -> Renderer:
        if self.end_id is None:
            raise FTError(
                f"{name} has no chat template, and its tokenizer no token that ends a text (eos_token)",
                "Choose an instruct or chat model, or name the end token in its tokenizer_config.json.",
            )
        return replace(self, template=("{{ bos_token }}" if self.adds_bos else "") + PLAIN)

    @property
    def plain(self) -> bool:
        """Whether the model brought no chat template, so that it has the plain one."""
        return self.template.endswith(PLAIN)

    @property
    def end_id(self) -> int | None:
        """The token that ends a text (eos_token)."""
        return self.tokenizer.token_to_id(self.special.get("eos_token", ""))

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the tokenizer puts its first token (bos_token) before every text."""
        bos = self.tokenizer.token_to_id(self.special.get("bos_token", ""))
        return bos is not None and self.tokenizer.encode("a").ids[:1] == [bos]

    @cached_property
    def _compiled(self) -> jinja2.Template:
        return _environment().from_string(self.template)

    @cached_property
    def fingerprint(self) -> str:
        """Of all that the tokens of a conversation follow from beside itself."""
        parts = (self.tokenizer.to_str(), self.template, json.dumps(self.special, sort_keys=True))
        return sha256("\0".join(parts).encode()).hexdigest()

    def text(self, messages: tuple[Message, ...], answer_next: bool = False, tools: str = "") -> str:
        """The template filled in; with `answer_next` it ends where the assistant begins to speak.

        `tools` are those of Conversation.tools. A template that knows of no tools leaves them out.

        Raises FTError with the template's own words when it refuses the messages.
        """
        try:
            return self._compiled.render(
                messages=[m.to_dict() for m in messages],
                tools=json.loads(tools) if tools else None,
                documents=None,
                add_generation_prompt=answer_next,
                **self.special,
            )
        except jinja2.TemplateError as error:
            raise FTError(f"the model's chat template refuses it: {error.message}") from None

    def ids(self, text: str) -> list[int]:
        """Token ids of already rendered text: the template has written the special tokens itself."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def document(self, conversation: Conversation) -> list[int]:
        """Token ids of a text to read, without a template: begun and ended as the tokenizer has it.

        The text is what the assistant says where it speaks alone, with or without a system prompt, which is left out;
        of any other conversation it is what the template makes of it. Raises FTError when there is no end token, or
        when the template refuses the conversation.
        """
        if self.end_id is None:
            raise FTError(
                "the model's tokenizer has no token that ends a text (eos_token)",
                "Choose another base model, or name the token in its tokenizer_config.json.",
            )
        messages = conversation.messages
        if [m.role for m in messages if m.role != "system"] == ["assistant"]:
            ids = self.tokenizer.encode(messages[-1].content).ids
            return ids if ids[-1:] == [self.end_id] else [*ids, self.end_id]
        ids = self.ids(self.text(messages, tools=conversation.tools))
        # Templates may end a text with the end token and a line feed.
        return ids if self.end_id in ids[-2:] else [*ids, self.end_id]

    def prompt(self, messages: tuple[Message, ...]) -> list[int]:
        """Token ids of the conversation up to where the assistant begins its next answer."""
        return self.ids(self.text(messages, answer_next=True))

    def example(self, conversation: Conversation, max_length: int | None = None, last: bool = False) -> Rendered:
        """Ids and labels: learnt is what the assistant says, its end-of-turn token included; its last answer alone
        with `last`.

        Each answer is what the template adds between "the assistant begins to speak" and "the turn is over", so no
        template needs to mark it. Tokens are labelled by their place in the text; one that straddles the boundary
        belongs to the prompt. Raises FTError when the template refuses the conversation, or writes an answer in so
        different a way that it cannot be found.
        """
        encoded, runs = self._encoded(conversation, last)
        ids = encoded.ids
        labels = [IGNORED] * len(ids)
        for start, end in runs:
            labels[start:end] = ids[start:end]
        keep = len(ids) if max_length is None else min(max_length, len(ids))
        return Rendered(
            ids=tuple(ids[:keep]),
            labels=tuple(labels[:keep]),
            cut=len(ids) - keep,
            cut_learnt=sum(label != IGNORED for label in labels[max(keep, 1) :]),
        )

    def counts(self, conversation: Conversation) -> Counts:
        """How many tokens `example` has, and which are learnt. Raises FTError as it does."""
        encoded, runs = self._encoded(conversation)
        return Counts(len(encoded), tuple((max(start, 1), end) for start, end in runs if end > 1))

    def _encoded(
        self, conversation: Conversation, last: bool = False
    ) -> tuple[tokenizers.Encoding, list[tuple[int, int]]]:
        """The conversation in tokens, and the places of those that are learnt, as half-open ranges in order."""
        whole = self.text(conversation.messages, tools=conversation.tools)
        spans = [
            self._answer(conversation, i, whole)
            for i, message in enumerate(conversation.messages)
            if message.role == "assistant"
        ]
        _refuse_unwritten(conversation, spans, whole)
        encoded = self.tokenizer.encode(whole, add_special_tokens=False)
        return encoded, _within(encoded.offsets, spans[-1:] if last else spans)

    def _answer(self, conversation: Conversation, i: int, whole: str) -> tuple[int, int]:
        """Where answer `i` stands in the rendered text, in characters."""
        messages, tools = conversation.messages, conversation.tools
        if i:
            before = self.text(messages[:i], answer_next=True, tools=tools)
            through = self.text(messages[: i + 1], tools=tools)
            if whole.startswith(through) and through.startswith(before):
                return len(before), len(through)
        return self._marked(messages, i, whole, tools)

    def _marked(self, messages: tuple[Message, ...], i: int, whole: str, tools: str) -> tuple[int, int]:
        """The same where what goes before does not tell: nothing does, or the template writes a turn otherwise when it
        asks for it, or when it is the last.

        A mark in the answer's place shows where it stands. Its turn ends where the text after it ceases to be what it
        would be at the end of the conversation.
        """
        marked = (*messages[:i], Message("assistant", _MARK, messages[i].more), *messages[i + 1 :])
        before, _, after = self.text(marked, tools=tools).partition(_MARK)
        ending = self.text(marked[: i + 1], tools=tools).partition(_MARK)[2]
        if not (len(before) + len(after) <= len(whole) and whole.startswith(before) and whole.endswith(after)):
            raise FTError("the model's chat template rewrites earlier turns, so the answers cannot be told apart")
        return len(before), len(whole) - len(after) + len(os.path.commonprefix([after, ending]))


def _within(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Places of the tokens that lie in a span as a whole, as half-open ranges in order.

    Tokens follow the text, so where they begin and end only grows. One of no characters is in no span.
    """
    runs: list[tuple[int, int]] = []
    at = 0
    for start, end in sorted(spans):
        at = bisect_left(offsets, start, lo=at, key=itemgetter(0))
        last = bisect_right(offsets, end, lo=at, key=itemgetter(1))
        for empty in [i for i in range(at, last) if offsets[i][0] == offsets[i][1]]:
            runs.append((at, empty))
            at = empty + 1
        runs.append((at, last))
        at = last
    return [(start, end) for start, end in runs if start < end]


def _refuse_unwritten(conversation: Conversation, spans: list[tuple[int, int]], whole: str) -> None:
    """Templates of vision models write nothing of a message that is plain text, and say nothing about it."""
    answers = (m.content for m in conversation.messages if m.role == "assistant")
    for answer, (start, end) in zip(answers, spans):
        said = answer.rpartition("</think>")[2].strip()  # reasoning may be left out
        if said not in whole[start:end]:
            raise FTError("the model's chat template leaves out what the assistant says", "Choose a text model.")


def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return environment


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


class _Generation(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %} marks what the assistant says; the text itself is unchanged."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _tokens(config: dict[str, Any]) -> dict[str, str]:
    """Special tokens by name; a token is text, or an object with its text under `content`."""
    found = {k: v["content"] if isinstance(v, dict) else v for k, v in config.items() if k.endswith("_token")}
    return {k: v for k, v in found.items() if isinstance(v, str)}
