"""Where the front door's verbs speak, and how what they do can end."""

from __future__ import annotations

import json
import sys
from typing import Any

from .errors import FTError


class JobFailed(FTError):
    """The job itself failed, in its own words: exit status 3."""


class JobStopped(Exception):
    """The job was stopped, by Ctrl-C or by `stop`: exit status 130. `result` is what it has."""

    def __init__(self, result: dict[str, Any]):
        super().__init__(result)
        self.result = result


class Out:
    """Where a verb speaks: with --json one object a line on stdout and people's text on stderr, else text alone."""

    def __init__(self, as_json: bool):
        self.as_json = as_json

    def say(self, text: str) -> None:
        print(text, file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def json(self, value: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False), flush=True)

    def result(self, value: dict[str, Any], text: str = "") -> None:
        """The last line. Without --json it is `text`, or the value a line a key."""
        self.json(value)
        if not self.as_json:
            self.say(text or "\n".join(f"{k}: {_plain(v)}" for k, v in value.items()))


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
