"""Matrix products of a CPU, each in the form that is fastest there: whole, or in two halves.

A product is shared out among the cores by its shape, and where it has about as many rows as columns it can happen that
one core does all: on two cores with AMX, 896 x 3072 by 3072 x 576 takes 3.2 ms at once, and 2.0 ms as two halves of
its columns. Which shapes that is differs with the CPU, the number of cores and the release of oneDNN, so it is
measured before a training, once on a machine, and kept: the forms differ in their last bits.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..workspace import write_whole
from .limits import LINES

_STEP = LINES
"""Rows are taken together up to a multiple of this."""
_SMALL, _LARGE = 2**24, 2**32
"""Multiplications of a product up to which, and from which on, it is taken as it is: the one is over before a second
half is begun, the other takes a while to measure."""
_MANY = 1536
"""Rows from which on the same: of 4,000 measured none beyond was faster in halves."""
_TURNS = 9
_WORTH = 0.9
"""A form is taken that needs at most this part of the time of the product at once."""

_found: dict[str, str] = {}
"""What `learn` has found: of a shape the name of its form. What is not here is computed at once."""


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b: (rows, inner) by (inner, columns)."""
    return _FORMS[_found.get(_shape(len(a), b), "whole")](a, b)


def learn(weights: Iterable[Tensor], rows: int, kept: Path) -> None:
    """Measures what products of up to so many rows by `weights`, (wide, width), on this machine's CPU, take.

    Both a layer's and its gradient's. What the file `kept` knows of this machine is not measured again.
    """
    _found.clear()
    here = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cpu": dict(torch.cpu.get_capabilities())}
    before = _read(kept)
    if {name: before.get(name) for name in here} == here:
        _found.update(before["forms"])
    known = len(_found)
    unknown = [w for w in weights if any(_shape(n, b) not in _found for n, b in _in_doubt(w, rows))]
    if unknown:
        _found.update(_measured_apart(unknown, rows))
    if len(_found) > known:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, json.dumps(here | {"forms": _found}, indent=1))


def _measured_apart(weights: list[Tensor], rows: int) -> dict[str, str]:
    """What `_measured` finds, by a process of its own: oneDNN keeps 2 MB for each product that it was once asked for,
    in all forms. Nothing where that process ends before its time, and the products are taken at once."""
    shapes = {(*w.shape, str(w.dtype).removeprefix("torch.")) for w in weights}
    asked = json.dumps({"threads": torch.get_num_threads(), "rows": rows, "weights": sorted(shapes), "known": _found})
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}


def _main() -> None:
    asked = json.load(sys.stdin)
    torch.set_num_threads(asked["threads"])
    _found.update(asked["known"])
    weights = [torch.ones(wide, width, dtype=getattr(torch, dtype)) for wide, width, dtype in asked["weights"]]
    print(json.dumps(_measured(weights, asked["rows"])))


def _measured(weights: list[Tensor], rows: int) -> dict[str, str]:
    """Of each shape in doubt that is not in _found yet the name of its form."""
    new: dict[str, str] = {}
    for weight in weights:
        for n, b in _in_doubt(weight, rows):
            if (shape := _shape(n, b)) not in _found | new:
                new[shape] = _fastest(torch.ones(n, len(b), dtype=b.dtype), b)
    return new


def _in_doubt(weight: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    """The products of up to so many rows by a weight that may be faster in halves: how many rows, and by what."""
    for b in (weight.t(), weight):
        for n in range(_STEP, min(_up(rows), _MANY) + 1, _STEP):
            if _is_in_doubt(n, b):
                yield n, b


def _read(kept: Path) -> dict[str, Any]:
    try:
        return json.loads(kept.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _is_in_doubt(rows: int, b: Tensor) -> bool:
    """Where rows and columns are many times each other's number, each core has its part."""
    columns = b.shape[1]
    return rows <= 3 * columns and columns <= 2 * rows and _SMALL < rows * b.numel() <= _LARGE


def _up(rows: int) -> int:
    return -(-rows // _STEP) * _STEP


def _shape(rows: int, b: Tensor) -> str:
    """As words that a file can hold. Weights are read along their rows or their columns: other code."""
    order = "rows" if b.stride(1) == 1 else "columns"
    return f"{_up(rows)} x {len(b)} x {b.shape[1]} {order} {str(b.dtype).removeprefix('torch.')}"


def _fastest(a: Tensor, b: Tensor) -> str:
    seconds = dict.fromkeys(_FORMS, float("inf"))
    for _ in range(_TURNS):
        for name, form in _FORMS.items():
            began = time.perf_counter()
            form(a, b)
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < _WORTH * seconds["whole"] else "whole"


def _rows(a: Tensor, b: Tensor) -> Tensor:
    out, half = a.new_empty(len(a), b.shape[1]), len(a) // 2
    torch.mm(a[:half], b, out=out[:half])
    torch.mm(a[half:], b, out=out[half:])
    return out


def _columns(a: Tensor, b: Tensor) -> Tensor:
    out, half = a.new_empty(len(a), b.shape[1]), b.shape[1] // 2
    torch.mm(a, b[:, :half], out=out[:, :half])
    torch.mm(a, b[:, half:], out=out[:, half:])
    return out


_FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"whole": torch.mm, "rows": _rows, "columns": _columns}


if __name__ == "__main__":
    _main()
