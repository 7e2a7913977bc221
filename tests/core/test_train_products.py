"""The forms of a product: the same numbers, and the one that is taken is the one that was found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ft_core.train import products

WEIGHT = torch.ones(96, 64)


@pytest.fixture(autouse=True)
def nothing_found(monkeypatch: pytest.MonkeyPatch):
    products._found.clear()
    monkeypatch.setattr(products, "_SMALL", 0)
    yield
    products._found.clear()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is asked, whatever a test says that products take."""
    monkeypatch.setattr(products, "_measured_apart", products._measured)


@pytest.mark.parametrize("form", products._FORMS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_each_form_is_the_product(form: str, precision: torch.dtype, rows: int) -> None:
    torch.manual_seed(0)
    a, weight = torch.randn(rows, 33).to(precision), torch.randn(33, 47).to(precision)
    for b in (weight, weight.t().contiguous().t()):
        torch.testing.assert_close(products._FORMS[form](a, b), a @ b)


@pytest.mark.usefixtures("here")
def test_what_was_found_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        asked.append((tuple(a.shape), tuple(b.shape)))
        return a @ b

    monkeypatch.setattr(products, "_fastest", lambda a, b: "rows" if b.shape[1] == 96 else "columns")
    products.learn([WEIGHT], 128, tmp_path / "products.json")
    monkeypatch.setitem(products._FORMS, "rows", noted)
    products.product(torch.ones(128, 64), WEIGHT.t())
    products.product(torch.ones(100, 64), WEIGHT.t())  # as one of 128 rows
    products.product(torch.ones(128, 96), WEIGHT)
    products.product(torch.ones(129, 64), WEIGHT.t())
    products.product(torch.ones(128, 64), torch.ones(64, 96))  # it lies otherwise in memory
    assert asked == [((128, 64), (64, 96)), ((100, 64), (64, 96))]


def test_the_fastest_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    takes = {"whole": 10.0, "rows": 7.0, "columns": 8.0}

    def lasting(seconds: float):
        def form(a: torch.Tensor, b: torch.Tensor) -> None:
            clock[0] += seconds

        return form

    monkeypatch.setattr(products.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(products, "_FORMS", {name: lasting(seconds) for name, seconds in takes.items()})
    assert products._fastest(torch.ones(2, 3), torch.ones(3, 4)) == "rows"
    monkeypatch.setitem(products._FORMS, "rows", lasting(9.5))  # not worth other last bits
    monkeypatch.setitem(products._FORMS, "columns", lasting(9.5))
    assert products._fastest(torch.ones(2, 3), torch.ones(3, 4)) == "whole"


@pytest.mark.usefixtures("here")
def test_a_machine_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "cache" / "products.json"
    asked = []
    monkeypatch.setattr(products, "_fastest", lambda a, b: asked.append((len(a), *b.shape)) or "columns")
    products.learn([WEIGHT, WEIGHT], 256, kept)
    # 256 rows are many times 64 columns
    assert asked == [*((n, 64, 96) for n in (64, 128, 192, 256)), *((n, 96, 64) for n in (64, 128, 192))]
    found = dict(products._found)
    products.learn([WEIGHT], 256, kept)
    assert len(asked) == 7 and products._found == found
    products.learn([WEIGHT], 384, kept)
    assert asked[7:] == []  # as many times 96
    about = json.loads(kept.read_text(encoding="utf-8"))
    kept.write_text(json.dumps(about | {"threads": 128}), encoding="utf-8")
    products.learn([WEIGHT], 256, kept)
    assert len(asked) == 14


def test_another_process_measures_what_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_SMALL", 2**24)  # as it is there
    weights = [torch.ones(512, 512), torch.ones(768, 512, dtype=torch.bfloat16), WEIGHT]
    products.learn(weights, 512, tmp_path / "products.json")
    asked = {products._shape(n, b) for weight in weights[:2] for n, b in products._in_doubt(weight, 512)}
    assert products._found.keys() == asked and set(products._found.values()) <= set(products._FORMS)


def test_a_process_that_is_ended_leaves_products_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products.sys, "executable", "false")
    products.learn([WEIGHT], 128, tmp_path / "products.json")
    assert products._found == {} and not (tmp_path / "products.json").exists()


@pytest.mark.usefixtures("here")
def test_what_is_kept_and_torn_is_measured_anew(tmp_path: Path) -> None:
    kept = tmp_path / "products.json"
    kept.write_text('{"torch": ', encoding="utf-8")
    products.learn([WEIGHT], 128, kept)
    assert json.loads(kept.read_text(encoding="utf-8"))["forms"] == products._found != {}


@pytest.mark.usefixtures("here")
def test_large_products_are_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_LARGE", 128 * 64 * 96)
    monkeypatch.setattr(products, "_fastest", lambda a, b: "rows")
    products.learn([WEIGHT], 256, tmp_path / "products.json")
    assert [name.split(" ")[0] for name in products._found] == ["64", "128", "64", "128"]


def test_nor_are_those_of_many_rows() -> None:
    asked = [rows for rows, _ in products._in_doubt(torch.ones(1024, 1024), 4000)]
    assert max(asked) == products._MANY and min(asked) == 512
