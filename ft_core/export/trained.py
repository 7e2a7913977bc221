"""What an export is made of: the adapter, its base, and what the training knows about itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import jobs, recipe
from ..conversation import Conversation, Message
from ..data.freeze import Frozen, frozen, read_frozen
from ..recipe import Recipe
from ..render import Renderer
from ..train.base import public_name, resolve
from ..train.models import catalog
from ..workspace import BUILTIN_REPO, Job
from .turns import Ends

QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the ocean.",
    "What is 2 + 2?",
    "Name three colours.",
    "Who are you?",
)
"""Asked when the training has too few rows of its own to ask."""


@dataclass(frozen=True)
class Trained:
    """A finished training, ready to be exported."""

    job: Job
    recipe: Recipe
    result: dict[str, Any]
    """Of the training: steps, held-out losses and the like."""
    base: Path
    """Folder of the base model, weights included."""
    base_id: str
    """Its id on the Hub, '' for a folder that has none."""
    licence: str
    """As the Hub names licences, '' when the base does not say."""
    renderer: Renderer
    ends: Ends
    conversations: tuple[Conversation, ...]
    """As they were trained, those held out first."""
    data: Frozen
    """How many of them there are, and their fingerprint."""

    @classmethod
    def of(cls, job: Job, report: Callable[[float, str], None]) -> Trained:
        """`report(share, what)` is called where the base has to be fetched again.

        Raises FTError when the base model is gone.
        """
        settings = recipe.load(job.recipe)
        rows = read_frozen(job.dataset)
        base = resolve(settings.model.base, settings.model.revision, job.project.workspace, job.path, report)
        renderer = Renderer.of(base)
        base_id = _hub_id(settings.model.base, job)
        held_first = sorted(rows, key=lambda row: row.split != "heldout")
        return cls(
            job=job,
            recipe=settings,
            result=jobs.view(job).result,
            base=base,
            base_id=base_id,
            licence=_licence(settings.model.base, base),
            renderer=renderer,
            ends=Ends.of(renderer),
            conversations=tuple(row.conversation for row in held_first),
            data=frozen(job.dataset),
        )

    @property
    def base_name(self) -> str:
        """What the base is called where no id is at hand; never a path."""
        return public_name(self.recipe.model.base, self.job.path)

    @property
    def width(self) -> int:
        """Of the base's hidden states; families have names of their own for it, GPT-2 n_embd."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.base).get_text_config().hidden_size

    @property
    def system(self) -> str:
        """The system prompt under which most rows were trained, '' when they were under the template's own or none."""
        systems = Counter(conversation.system for conversation in self.conversations)
        text, count = systems.most_common(1)[0] if systems else ("", 0)
        return text if 2 * count > systems.total() else ""

    def prompts(self, count: int) -> list[tuple[Message, ...]]:
        """Chats that wait for an answer: openings of different rows, then general questions."""
        found: dict[tuple[Message, ...], None] = {}
        for conversation in self.conversations:
            roles = [message.role for message in conversation.messages]
            if "user" in roles and len(found) < count:
                found[conversation.messages[: roles.index("user") + 1]] = None
        head = (Message("system", self.system),) if self.system else ()
        for question in QUESTIONS[: count - len(found)]:
            found[(*head, Message("user", question))] = None
        return list(found)


def _hub_id(base: str, job: Job) -> str:
    if base == recipe.BUILTIN:
        return BUILTIN_REPO
    return "" if (job.path / base).is_dir() else base


_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "Llama 3.1 Community": "llama3.1",
    "Llama 3.2 Community": "llama3.2",
}
"""The catalogue's names for people, and the Hub's for machines."""


def _licence(base: str, folder: Path) -> str:
    """From the catalogue, else from the front matter of the model's card."""
    if found := {m.base: m.licence for m in catalog()}.get(base):
        return _LICENCES[found]
    card = folder / "README.md"
    if not card.exists():
        return ""
    text = card.read_text(encoding="utf-8")
    if not text.startswith("---\n"):
        return ""
    try:
        front = yaml.safe_load(text.split("---\n", 2)[1])
    except yaml.YAMLError:
        return ""
    found = front.get("license", "") if isinstance(front, dict) else ""
    return found if isinstance(found, str) else ""


def no_paths(folder: Path, job: Job) -> bool:
    """Whether no text file in `folder` speaks of where things lie on this machine."""
    home = str(job.project.workspace.home)
    texts = [p for p in folder.rglob("*") if p.suffix in (".json", ".md", ".jinja", "") and p.is_file()]
    return not any(home in p.read_text(encoding="utf-8", errors="replace") for p in texts)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
