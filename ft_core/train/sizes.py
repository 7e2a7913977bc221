"""What a training is made of, in sizes: the shape of the model, and the rows in tokens. Torch-free."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..recipe import TrainRecipe


@dataclass(frozen=True)
class Shape:
    """What the sizes of a dense decoder follow from: its config.json."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    heads: int
    attention: int
    """Width of the queries of a layer, all heads together."""
    key_value: int
    """Width of the keys of a layer, and of the values."""
    tied: bool

    @classmethod
    def of(cls, folder: Path) -> Shape | None:
        """From the model's folder; None for a model that does not describe itself in the usual words."""
        try:
            return cls.described(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError):
            return None

    @classmethod
    def described(cls, config: dict) -> Shape:
        """From the words of a config.json. Raises KeyError when it has others."""
        config = config.get("text_config", config)
        heads = config["num_attention_heads"]
        head = config.get("head_dim") or config["hidden_size"] // heads
        return cls(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            vocabulary=config["vocab_size"],
            heads=heads,
            attention=heads * head,
            key_value=config.get("num_key_value_heads", heads) * head,
            tied=config.get("tie_word_embeddings", False),
        )

    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of one layer."""
        h, i, a, kv = self.hidden, self.intermediate, self.attention, self.key_value
        return [(h, a), (h, kv), (h, kv), (a, h), (h, i), (h, i), (i, h)]

    @property
    def a_layer(self) -> int:
        """Parameters of one layer."""
        return sum(a * b for a, b in self.linears())

    @property
    def embeddings(self) -> int:
        """Parameters of the embeddings and the head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        return self.embeddings + self.layers * self.a_layer

    def trained(self, recipe_: TrainRecipe) -> int:
        """Parameters that the recipe's method trains."""
        match recipe_.method:
            case "full":
                return self.parameters
            case "layers":
                return min(recipe_.layers, self.layers) * self.a_layer
        magnitudes = sum(b for _, b in self.linears()) if recipe_.method == "dora" else 0
        return self.layers * (recipe_.rank * sum(a + b for a, b in self.linears()) + magnitudes)


@dataclass(frozen=True)
class Work:
    """What is trained on, in rows and tokens."""

    rows: int
    tokens: int
    """Input tokens of one epoch, without padding."""
    heldout_tokens: int
    longest: int
    """Tokens of the longest row, as it is cut."""
    learnt: int
    """The most learnt tokens that a row has."""
    spread: int = 0
    """Standard deviation of the rows' tokens; of a pair of its longer answer's, or of both."""
    shared: int = 0
    """Tokens with which all rows begin."""
    asked: int = 0
    """Tokens with which both answers of a pair begin, on average; 0 where rows are no pairs."""
