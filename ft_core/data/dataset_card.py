"""The dataset card: what the Hub wants to know, and what a reader needs to judge the rows and to use them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from huggingface_hub import DatasetCardData

from .store import Counts

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_HUB = re.compile(r"hub:(?P<repo>[^ ]+) \((?P<what>.*); licence (?P<licence>.*)\)", re.DOTALL)
"""The source of rows that came from the Hub (hub_rows.table)."""
GENERATED = "generated:"
"""Begins the source of rows that a generation wrote, and the id of its job follows."""

_GROUPS = {
    "equal": "equal rows stay together",
    "question": "rows with the same first question stay together",
    "near": "near-duplicates stay together",
    "source": "all rows of a source stay together",
}
_SHAPE = {
    "messages": "a list of messages with role and content, as chat templates read it",
    "sharegpt": "ShareGPT's conversations, with from and value",
    "alpaca": "instruction, input and output",
    "prompt-completion": "prompt and completion, as TRL reads them",
    "contexts": "input, contexts and response",
    "preference": "prompt, chosen and rejected, as TRL reads them",
    "text": "one text",
}


@dataclass(frozen=True)
class Facts:
    """What is known of the rows that are published."""

    repo: str
    shape: str
    columns: tuple[str, ...]
    system: str
    """The project's system prompt."""
    parts: Mapping[str, int]
    """train and test -> rows that were written."""
    left_out: int
    """Rows without a worse answer, by the shape preference."""
    unplaced: int
    """Rows that came after the split, which are in train."""
    sources: Mapping[str, int]
    """Source (conversations.source) -> rows of it that were written."""
    generators: Mapping[str, str]
    """Source -> the model that wrote its rows, '' where nobody knows any more."""
    languages: tuple[str, ...]
    """ISO 639-1 codes of the answers, the most frequent first; () where they were not looked at."""
    licence: str
    """As the person said, '' for nothing."""
    counts: Counts
    split: tuple[float, int, str] | None
    """Share, seed and grouping."""
    flags: Mapping[str, int]
    """By check, the number of rows that it found."""
    fingerprint: str


def card(facts: Facts) -> str:
    """README.md of the dataset's repository."""
    files = [{"split": part, "path": f"data/{part}-*.parquet"} for part in facts.parts]
    rows = sum(facts.parts.values())
    data = DatasetCardData(
        license=facts.licence or None,
        language=list(facts.languages) or None,
        task_categories=["text-generation"],
        size_categories=[next((name for most, name in _SIZES if rows < most), "1M<n<10M")],
        tags=["ft-flow", *(["synthetic"] if facts.generators else [])],
        configs=[{"config_name": "default", "data_files": files}],
    )
    name = facts.repo.rpartition("/")[2]
    sections = [
        f"---\n{data.to_yaml()}\n---\n\n# {name}",
        f"{rows:,} conversations to fine-tune a chat model with. Each row is {_SHAPE[facts.shape]}{_typed(facts)}.",
        _system(facts),
        f"## How it was made\n\n{_sources(facts)}",
        f"## Rows\n\n{_rows(facts)}",
        f"## What a look at every row found\n\n{_audit(facts)}",
        f"## Licences\n\n{_licences(facts)}",
        f"## Use\n\n{_use(facts)}",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _typed(facts: Facts) -> str:
    return "; `tools` and `tool_calls` are JSON text" if "tools" in facts.columns else ""


def _system(facts: Facts) -> str:
    if not facts.system:
        return ""
    return f"Conversations without a system prompt of their own are under this one:\n\n{_verbatim(facts.system)}"


def _sources(facts: Facts) -> str:
    lines = ["| source | rows | how |", "|---|---|---|"]
    for source, rows in sorted(facts.sources.items(), key=lambda item: -item[1]):
        lines.append(f"| {_named(source)} | {rows:,} | {_how(source, facts)} |")
    return "\n".join(lines)


def _named(source: str) -> str:
    if found := _HUB.fullmatch(source):
        return f"{_cell(found['repo'])} ({_cell(found['what'])}), Hugging Face Hub"
    if source.startswith(GENERATED):
        return "generated"
    if "://" in source:  # addresses may bring a password or a signature along
        parts = urlsplit(source)
        source = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    return f"{_cell(source)}" if source else "written by hand"


def _how(source: str, facts: Facts) -> str:
    if source in facts.generators:
        return f"written by {_cell(facts.generators[source]) or 'a model that is not recorded'}, kept by a person"
    return "imported" if source else "in FT Flow"


def _rows(facts: Facts) -> str:
    counts = facts.counts
    accepted = counts.rows - counts.to_review - counts.rejected
    lines = ["| | |", "|---|---|"]
    lines += [f"| {part} | {rows:,} |" for part, rows in facts.parts.items()]
    lines += [
        f"| accepted by a person, or imported | {accepted:,} |",
        f"| not reviewed yet | {counts.to_review:,} |",
        f"| rejected, not in here | {counts.rejected:,} |",
    ]
    if facts.left_out:
        lines.append(f"| without a worse answer, not in here | {facts.left_out:,} |")
    lines.append(f"| fingerprint (sha256) | `{facts.fingerprint}` |")
    if facts.split is None:
        said = "The rows are not split."
    else:
        share, seed, group = facts.split
        said = f"Split with seed {seed}, {share:.0%} held out as `test`; {_GROUPS[group]}."
    if facts.unplaced and facts.split:
        said += f" {facts.unplaced:,} rows came after the split and are in `train`."
    return "\n".join(lines) + f"\n\n{said}"


def _audit(facts: Facts) -> str:
    found = {name: n for name, n in facts.flags.items() if n}
    clean = ", ".join(name.replace("_", " ") for name, n in facts.flags.items() if not n)
    lines = ["| check | rows |", "|---|---|", *(f"| {name.replace('_', ' ')} | {n:,} |" for name, n in found.items())]
    return "\n\n".join(filter(None, ["\n".join(lines) if found else "", f"No row: {clean}." if clean else ""]))


def _licences(facts: Facts) -> str:
    own = f"This dataset is published under {facts.licence}." if facts.licence else "No licence was chosen for it yet."
    lines = [own]
    for source in facts.sources:
        if found := _HUB.fullmatch(source):
            licence = found["licence"]
            said = "its card names no licence; look there" if licence == "not said" else _cell(licence)
            lines.append(f"- {_cell(found['repo'])}: {said}")
        elif source in facts.generators:
            lines.append(f"- {_named(source)}: the terms of the model's provider may limit what it is used for")
        elif source:
            lines.append(f"- {_named(source)}: not known to FT Flow; check it before the rows are passed on")
    return "\n".join([lines[0], "", *dict.fromkeys(lines[1:])]).strip()


def _use(facts: Facts) -> str:
    return f"""```python
from datasets import load_dataset

rows = load_dataset("{facts.repo}")
```

Made with FT Flow. `python -m ft_core data import hub:{facts.repo}` takes the rows into a project, and
`python -m ft_core train` fine-tunes a model on them. The fingerprint is what `python -m ft_core data stats` says in
the project that this was pushed from: a sha256 over the side and the text of every row, in order."""


def _verbatim(text: str) -> str:
    """As code: nothing of it is Markdown or HTML."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _cell(text: str) -> str:
    """Text of others in a table: on one line, in code."""
    said = " ".join(text.split()).replace("`", "'").replace("|", "¦")
    return f"`{said}`" if said else ""
