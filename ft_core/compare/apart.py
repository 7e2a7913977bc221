"""After as a model of its own beside the base. What the training left alone is in memory once, for both."""

from __future__ import annotations

import copy
from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel

from ..train import weights
from .mixed import check


def needs_own_model(folder: Path) -> bool:
    """Whether what was trained cannot answer for some rows of a batch while the base answers for the others.

    Weights of the base that changed cannot, nor can DoRA, which scales the base's own weights.
    """
    return (folder / weights.CHANGED).exists() or bool(getattr(PeftConfig.from_pretrained(folder), "use_dora", False))


def tuned(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """A second model: `model` with what the training in `folder` made of it, in the same arithmetic.

    `model` stays as it is, and the two share every weight that did not change. Raises FTError as `check` does.
    """
    check(model, folder)
    own = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
    if (folder / weights.CHANGED).exists():
        weights.put(own, folder)
        return own.eval()
    return PeftModel.from_pretrained(own, folder, torch_device=str(model.device)).get_base_model().eval()
