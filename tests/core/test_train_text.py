"""Plain text: every token of every document is learnt once, in blocks, and nothing is dropped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
from transformers import AutoModelForCausalLM

from ft_core.compare import heldout
from ft_core.conversation import Conversation, Message
from ft_core.data.freeze import FrozenRow, read_frozen
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import Finished, Metric, Note, Sample
from ft_core.recipe import TrainRecipe
from ft_core.render import Renderer
from ft_core.train import rows
from ft_core.workspace import Job, Workspace
from tests.core import bases
from tests.core.bases import END, END_ID
from tests.core.trainings import created, train

TEXT = TrainRecipe(
    learns="text", method="full", epochs=6.0, learning_rate=1e-2, batch_size=4, micro_batch=2, precision="fp32",
    max_length=32, keep="last",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bases.pythia(tmp_path_factory.mktemp("bases") / "tiny-pythia")


def text(said: str, system: str = "") -> Conversation:
    return Conversation((Message("assistant", said),)).with_system(system)


def _side(base: Path, *conversations: Conversation, max_length: int = 32) -> tuple[rows.Side, list[str]]:
    frozen = [FrozenRow(i, c, "train") for i, c in enumerate(conversations, 1)]
    left_out: list[str] = []
    found = rows.side(frozen, Renderer.of(base), replace(TEXT, max_length=max_length), left_out)
    return found, left_out


def _read(base: Path, block) -> str:
    return Renderer.of(base).tokenizer.decode(block.ids, skip_special_tokens=False)


def test_golden(base: Path) -> None:
    """Documents end with the end token and follow each other, blocks split them; a chat is as the template has it."""
    chat = Conversation((Message("user", "Why?"), Message("assistant", "Because.")))
    found, left_out = _side(base, text("The harbour lies north."), text("Gulls.", system="Be brief."), chat)
    assert [_read(base, block) for block in found.rows] == [
        "The harbour lies north.<|endoftext|>Gulls.<|endoftext|>#",
        "## Question:\nWhy?\n\n### Answer:\nB",
        "ecause.<|endoftext|>",
    ]
    assert [len(block.ids) for block in found.rows] == [32, 32, 8]
    assert found.ids == [1, 3, 3] and not left_out and not found.worse


def test_all_tokens_but_the_first_of_each_block_are_labels(base: Path) -> None:
    documents = [text(f"Document {n}: " + "waves and wind. " * n) for n in range(9)]
    found, _ = _side(base, *documents)
    every = [token for c in documents for token in (*c.messages[0].content.encode(), END_ID)]
    assert [len(block.ids) for block in found.rows[:-1]] == [32] * (len(found.rows) - 1)
    assert all(block.labels == block.ids for block in found.rows)
    renderer = Renderer.of(base)
    assert "".join(_read(base, b) for b in found.rows) == "".join(c.messages[0].content + END for c in documents)
    assert sum(block.learnt for block in found.rows) == len(every) - len(found.rows)
    assert renderer.end_id == END_ID


@pytest.mark.parametrize(("length", "expected"), [(31, [32]), (32, [31, 2]), (33, [32, 2]), (64, [32, 31, 2])])
def test_no_block_is_one_token_for_nothing_would_be_learnt_of_it(base: Path, length: int, expected: list[int]) -> None:
    found, _ = _side(base, text("x" * length))
    assert [len(block.ids) for block in found.rows] == expected


def test_a_text_is_begun_and_ended_as_the_tokenizer_has_it(tmp_path: Path) -> None:
    folder = bases.byte_tokenizer(tmp_path / "begins", bos_token=END, eos_token=END)
    made = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.post_processor = tokenizers.processors.TemplateProcessing(f"{END} $A", special_tokens=[(END, END_ID)])
    made.save(str(folder / "tokenizer.json"))
    assert Renderer.of(folder).document(text("ab"))[0] == END_ID
    assert len(Renderer.of(folder).document(text("ab"))) == 4
    made.post_processor = tokenizers.processors.TemplateProcessing(f"$A {END}", special_tokens=[(END, END_ID)])
    made.save(str(folder / "tokenizer.json"))
    assert len(Renderer.of(folder).document(text("ab"))) == 3  # not ended twice


def test_a_tokenizer_without_an_end_token_is_one_sentence(tmp_path: Path) -> None:
    folder = bases.byte_tokenizer(tmp_path / "endless")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(FTError, match="no token that ends a text"):
        Renderer.of(folder).document(text("ab"))


def test_a_row_that_the_template_refuses_is_left_out_and_named(base: Path) -> None:
    found, left_out = _side(base, text("One."), Conversation((Message("user", "?"), Message("tool", "4"))))
    assert [_read(base, block) for block in found.rows] == ["One." + END]
    (reason,) = left_out
    assert "knows no tools" in reason and "(rows 2)" in reason


def _job(workspace: Workspace, base: Path, wanted: TrainRecipe = TEXT) -> Job:
    project = workspace.project("harbour", create=True)
    with Store(project.data) as store:
        store.set_system("You know the harbour.")
        store.add(
            [
                text(f"Berth {n} of the harbour has {n + 3} metres of water at low tide, more or less.")
                for n in range(14)
            ]
        )
    return created(project, base, wanted)


def test_it_learns_and_the_figures_are_of_all_tokens(workspace: Workspace, base: Path) -> None:
    job = _job(workspace, base)
    said = train(job)
    result = said[-1].result
    assert isinstance(said[-1], Finished) and not [e for e in said if isinstance(e, Note) and e.level == "warning"]
    losses = [e.values["loss"] for e in said if isinstance(e, Metric) and "loss" in e.values]
    assert losses[0] == pytest.approx(math.log(264), abs=0.3) and losses[-1] < losses[0] - 1
    assert result["heldout_after"] < result["heldout_before"] - 1

    frozen = read_frozen(job.dataset)
    found = rows.render(frozen, Renderer.of(base), TEXT)
    assert result["steps"] == math.ceil(len(found.train) / 4) * 6
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    nats = tokens = 0.0
    with torch.no_grad():
        for block in found.heldout:
            ids = torch.tensor([block.ids])
            nats += model(input_ids=ids, labels=ids).loss.item() * (len(block.ids) - 1)
            tokens += len(block.ids) - 1
    assert nats / tokens == pytest.approx(result["heldout_before"], abs=1e-5)
    evaluated = heldout.evaluate(job)
    assert evaluated.before == pytest.approx(result["heldout_before"], abs=1e-5)
    assert evaluated.after == pytest.approx(result["heldout_after"], abs=1e-5)


def test_the_probes_are_beginnings_to_go_on_from(workspace: Workspace, base: Path) -> None:
    said = train(_job(workspace, base, replace(TEXT, epochs=1.0, steps=1)))
    prompts = {e.prompt for e in said if isinstance(e, Sample)}
    assert len(prompts) == 2 and all(len(p.split()) == 12 and p.startswith("Berth ") for p in prompts)
    said = train(_job(workspace, base, replace(TEXT, steps=1, probes=("Berth 3",))))
    assert {e.prompt for e in said if isinstance(e, Sample)} == {"Berth 3"}
