"""A base of a family that names its sizes otherwise: trained, merged, and told what has no place for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from ft_core.export.trained import Trained
from ft_core.workspace import Job

from . import bases
from .exporting import export_job, exported, result_of, training


@pytest.fixture
def job(workspace, tmp_path: Path) -> Job:
    return training(workspace.home, bases.gpt2(tmp_path / "gpt2"))


def test_its_width_is_what_it_calls_n_embd(job: Job) -> None:
    assert Trained.of(job, lambda share, what: None).width == 32


def test_it_is_merged_and_loads(job: Job, tmp_path: Path) -> None:
    result = result_of(exported(export_job(job, "merged", out=str(tmp_path / "out"))))
    assert result["verified"], result["checks"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "fjord").config.n_embd == 32
