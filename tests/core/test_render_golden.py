"""The chat template of each model that the picker offers: the text, how many tokens, and what of it is learnt.

Between ⟦ and ⟧ stands what is learnt. Templates are those that TRL ships (SmolLM2's is the built-in model's), tokens
those of the built-in model and Llama's special ones: the files hold the template to account, not the tokenizer.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
import tokenizers
import trl

import ft_core.render
from ft_core.conversation import Conversation, Message
from ft_core.render import Renderer
from ft_core.train.models import catalog

GOLDEN = Path(__file__).parent / "golden" / "templates"
TEMPLATES = Path(trl.__file__).parent / "chat_templates"
FAMILIES = {
    "built-in": "smollm2",
    "HuggingFaceTB/SmolLM2-360M-Instruct": "smollm2",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": "smollm2",
    "HuggingFaceTB/SmolLM3-3B": "",  # no copy of its template is at hand
    "Qwen/Qwen2.5-0.5B-Instruct": "qwen2_5",
    "Qwen/Qwen2.5-1.5B-Instruct": "qwen2_5",
    "Qwen/Qwen3-0.6B": "qwen3",
    "Qwen/Qwen3-8B": "qwen3",
    "Qwen/Qwen3-4B-Instruct-2507": "qwen3_instruct_2507",
    "meta-llama/Llama-3.2-1B-Instruct": "llama3_2",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3_1",
}
CHAT = Conversation(
    (
        Message("system", "You are Fjord."),
        Message("user", "Do you ship to Norway?"),
        Message("assistant", "Yes, in four days."),
        Message("user", "And back?"),
        Message("assistant", "That too – æøå 👋🏽.\n\n- free"),
    )
)
BARE = Conversation(CHAT.messages[1:3])


class _OneDay(datetime):
    """Llama's templates write today's date."""

    @classmethod
    def now(cls) -> datetime:
        return cls(2024, 7, 26)


def with_template(renderer: Renderer, family: str) -> Renderer:
    if family == "smollm2":
        return renderer
    tokenizer = tokenizers.Tokenizer.from_str(renderer.tokenizer.to_str())
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    return Renderer(tokenizer, template, {"bos_token": "<|begin_of_text|>"})


def _shown(renderer: Renderer, conversation: Conversation) -> str:
    encoded, runs = renderer._encoded(conversation)
    text = renderer.text(conversation.messages)
    shown, at = "", 0
    for start, end in runs:
        first, last = encoded.offsets[start][0], encoded.offsets[end - 1][1]
        shown += f"{text[at:first]}⟦{text[first:last]}⟧"
        at = last
    example = renderer.example(conversation)
    return f"{shown}{text[at:]}\n--- {len(example.ids)} tokens, {example.learnt} learnt\n"


def test_every_model_of_the_picker_has_its_family_here() -> None:
    assert set(FAMILIES) == {model.base for model in catalog()}


@pytest.mark.parametrize("family", sorted({family for family in FAMILIES.values() if family}))
def test_golden(renderer: Renderer, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ft_core.render, "datetime", _OneDay)
    renderer = with_template(renderer, family)
    shown = _shown(renderer, CHAT) + _shown(renderer, BARE)
    assert shown == (GOLDEN / f"{family}.txt").read_text(encoding="utf-8")
