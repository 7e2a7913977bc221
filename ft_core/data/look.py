"""A look at a source before anything is taken: its columns, what they are taken for, its first rows.

`look` does it in this process; `ask` is the page's, which does so for small files alone: what comes over the network,
and what could fill the memory, is looked at in a child process (`python -m ft_core data look`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import jobs
from ..errors import FTError
from ..workspace import on_a_space
from . import formats, shapes, sources
from .formats import NoShape
from .reading import HubRows, Pasted
from .sources import Source

PATIENCE_S = 120.0
_SMALL = 20_000_000
"""Bytes of a file that is looked at in the web process."""


def look(
    source: Source, mapping: Mapping[str, str] | None = None, shape: str = "", token: str | bool | None = None
) -> dict[str, Any]:
    """What a source has, as JSON:

    `table` (the file that this is about), `shape`, `fields` ([{name, needed, column}], '' for none), `columns`,
    `samples` (column -> how it begins), `preview` ([conversation], up to five, as Conversation.to_dict), `skipped`
    ([{file, row, reason}]), `shapes` (shape -> [{name, needed}]), `problem` ({message, hint} when the columns make no
    shape; then `shape` is what was asked for and there is no preview), and for a dataset of the Hub `hub`: {repo,
    licence, gated, configs: {name: [splits]}, config, split, columns, rows}.

    Raises FTError when it cannot be read at all.
    """
    source = sources.parsed(source)
    hub = None
    if isinstance(source, HubRows):
        from . import hub_rows

        about = hub_rows.about(source, token)
        hub = asdict(about)
        source = HubRows(about.repo, about.config, about.split, source.rows, source.random, source.seed)
    choices = {s.name: [{"name": f, "needed": f in s.needed} for f in s.fields] for s in shapes.SHAPES}
    known = {"shapes": choices, "hub": hub}
    try:
        found = formats.recognise(source, mapping, shape, token)
    except NoShape as error:
        fields = [{**field, "column": (mapping or {}).get(field["name"], "")} for field in choices.get(shape, ())]
        return known | {
            "table": sources.named(source),
            "shape": shape,
            "fields": fields,
            "columns": list(error.columns),
            "samples": error.samples,
            "preview": [],
            "skipped": [],
            "problem": {"message": error.message, "hint": error.hint},
        }
    return known | {
        "table": found.table,
        "shape": found.shape,
        "fields": [asdict(field) for field in found.fields],
        "columns": list(found.columns),
        "samples": found.samples,
        "preview": [conversation.to_dict() for conversation in found.preview],
        "skipped": [asdict(skip) for skip in found.skipped],
        "problem": None,
    }


def ask(source: Source, mapping: Mapping[str, str] | None = None, shape: str = "", token: str = "") -> dict[str, Any]:
    """As `look`, without loading `datasets` here or reading much. `token` is the Hub's.

    A path as text is what somebody typed, and refused on a Space; an uploaded file comes as a Path.
    """
    typed, source = isinstance(source, str), sources.parsed(source)
    if typed and isinstance(source, Path) and on_a_space():
        raise FTError("paths of a Space are nobody's to read", "Upload the file, or give its https:// address.")
    if isinstance(source, Pasted) or (isinstance(source, Path) and _is_small(source)):
        return look(source, mapping, shape)
    asked = {"mapping": dict(mapping or {}), "shape": shape, "token": token or (False if on_a_space() else None)}
    asked["source"] = {"hub": asdict(source)} if isinstance(source, HubRows) else str(source)
    name = sources.named(source)
    late = FTError(
        f"{name} took longer than {PATIENCE_S:g} seconds to look at",
        "Import it without a look, or copy the file to this machine first.",
    )
    broken = FTError(f"{name} could not be looked at", "Try again; the log has the rest.")
    return jobs.heard(jobs.front_door("data", "look", "-"), json.dumps(asked), PATIENCE_S, late, broken)


def asked(text: str) -> dict[str, Any]:
    """The child's side of `ask`: what came on standard input -> what goes out."""
    value = json.loads(text)
    source = value["source"]
    source = HubRows(**source["hub"]) if isinstance(source, dict) else source
    return look(source, value["mapping"], value["shape"], value["token"])


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= _SMALL and path.suffix.lower() not in (".zip", ".gz")
