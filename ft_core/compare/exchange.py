"""What the engine is asked and what it says, as plain values: page, child process and command line share them.

No torch here: the page imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ft_core.conversation import Message

Side = Literal["before", "after"]
"""before is the untouched base model, after what was made of it."""
SIDES: tuple[Side, ...] = get_args(Side)

Chats = Mapping[Side, tuple[Message, ...]]
"""The turns so far of each side that is asked, the person's last. The sides differ in what they answered earlier."""


@dataclass(frozen=True)
class Delta:
    """One side's answer as far as it has come."""

    side: Side
    text: str
    """The whole answer so far, never half a character."""
    tokens: int
    tokens_per_s: float
    """Tokens a second since the first one; 0 until there are two."""
    done: bool
    """Nothing more comes from this side: it ended its turn, reached the longest answer, or was cancelled."""


@dataclass(frozen=True)
class Proof:
    """Whether before is before. Logits are compared over a fixed prompt, on the path that answers take."""

    max_logit_difference: float
    """Largest difference between the before rows, beside the after rows, and the base as it was loaded from disk,
    before anything trained came near it. 0.0 is bit for bit the same model."""
    base_fingerprint: str
    """sha256 over the base's weight files (see engine.base_fingerprint)."""
    after_difference: float
    """The same for the after rows: what the training changed. 0.0 means that it does nothing."""
    precision: str
    """fp32, bf16 or fp16: what both sides compute in."""
