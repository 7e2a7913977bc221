"""Base models without a chat template: the plain one that they get, and that it goes wherever the model goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from transformers import AutoTokenizer

from ft_core.compare.engine import Engine
from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import Event, Finished
from ft_core.export.modelfile import BATTERY, PADDED, Template
from ft_core.export.turns import Ends, Turns
from ft_core.recipe import CompareRecipe, TrainRecipe
from ft_core.render import IGNORED, PLAIN, Renderer
from ft_core.workspace import Job, Workspace
from tests.core import bases, exporting
from tests.core.bases import END, byte_tokenizer
from tests.core.trainings import created, train

CHAT = (
    Message("system", "Be brief."),
    Message("user", "What is red?"),
    Message("assistant", "A colour."),
    Message("user", "And C?"),
    Message("assistant", " A letter."),
)


@pytest.fixture(scope="module")
def pythia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bases.pythia(tmp_path_factory.mktemp("bases") / "tiny-pythia")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bases.gpt2(tmp_path_factory.mktemp("bases") / "tiny-gpt2")


def _trained(workspace: Workspace, base: Path, **settings: object) -> tuple[Job, list[Event]]:
    project = workspace.project("questions", create=True)
    with Store(project.data) as store:
        for n in range(12):
            store.add([Conversation((Message("user", f"What is {n}?"), Message("assistant", f"It is {n}.")))])
    quick = TrainRecipe(steps=8, learning_rate=1e-2, batch_size=4, micro_batch=4, rank=4, precision="fp32", **settings)
    job = created(project, base, quick)
    said = train(job)
    assert isinstance(said[-1], Finished)
    return job, said


# --- the template


def test_golden(pythia: Path) -> None:
    renderer = Renderer.of(pythia)
    assert renderer.plain
    assert renderer.text(CHAT) == (
        "Be brief.\n\n"
        "### Question:\nWhat is red?\n\n### Answer:\nA colour.<|endoftext|>"
        "### Question:\nAnd C?\n\n### Answer:\n A letter.<|endoftext|>"
    )
    assert renderer.text(CHAT[:2], answer_next=True) == "Be brief.\n\n### Question:\nWhat is red?\n\n### Answer:\n"
    example = renderer.example(Conversation(CHAT))
    learnt = [id for id, label in zip(example.ids, example.labels) if label != IGNORED]
    assert renderer.tokenizer.decode(learnt, skip_special_tokens=False) == f"A colour.{END} A letter.{END}"
    alone = renderer.example(Conversation((Message("assistant", "Only a text."),)))
    assert alone.learnt == len("Only a text.") + 1


def test_the_last_answer_alone(pythia: Path) -> None:
    renderer = Renderer.of(pythia)
    example = renderer.example(Conversation(CHAT), last=True)
    learnt = [id for id, label in zip(example.ids, example.labels) if label != IGNORED]
    assert renderer.tokenizer.decode(learnt, skip_special_tokens=False) == f" A letter.{END}"
    assert example.ids == renderer.example(Conversation(CHAT)).ids


def test_transformers_writes_the_same_from_the_saved_file(pythia: Path, tmp_path: Path) -> None:
    shutil.copytree(pythia, tmp_path / "saved")
    renderer = Renderer.of(pythia)
    (tmp_path / "saved" / "chat_template.jinja").write_text(renderer.template)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for messages, answer_next in ((CHAT, False), (CHAT[:2], True), (CHAT[1:], False)):
        plain = [m.to_dict() for m in messages]
        text = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=answer_next)
        assert renderer.text(messages, answer_next) == text
    assert Renderer.of(tmp_path / "saved").plain


def test_ollama_can_write_it_and_stops_at_the_end_token(pythia: Path) -> None:
    renderer = Renderer.of(pythia)
    ends = Ends.of(renderer)
    assert (ends.stops, ends.end_id, ends.opening) == ((END,), 256, "")
    template = Template(Turns.of(renderer), runtime_opens=False)
    for chat in (*BATTERY, PADDED):
        assert template.rendered(chat) == renderer.text(chat, answer_next=True)


def test_tools_are_refused(pythia: Path) -> None:
    call = Message("assistant", "", json.dumps({"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}))
    for odd in (call, Message("tool", "4 euro")):
        with pytest.raises(FTError, match="knows no tools"):
            Renderer.of(pythia).example(Conversation((CHAT[1], odd, CHAT[2])))


def test_a_tokenizer_without_an_end_token_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FTError, match="no chat template, and its tokenizer no token that ends a text") as refused:
        Renderer.of(byte_tokenizer(tmp_path / "endless"))
    assert refused.value.hint
    with pytest.raises(FTError, match="endless"):
        Renderer.of(byte_tokenizer(tmp_path / "endless", eos_token="<never>"))


def test_a_tokenizer_that_begins_texts_begins_them_here_too(tmp_path: Path) -> None:
    folder = byte_tokenizer(tmp_path / "begins", bos_token=END, eos_token=END)
    made = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.post_processor = tokenizers.processors.TemplateProcessing(f"{END} $A", special_tokens=[(END, 256)])
    made.save(str(folder / "tokenizer.json"))
    renderer = Renderer.of(folder)
    assert renderer.plain and renderer.text(CHAT[1:3]).startswith(f"{END}### Question:")
    template = Template(Turns.of(renderer), runtime_opens=bool(Ends.of(renderer).opening))
    for chat in BATTERY:
        assert template.rendered(chat) == renderer.text(chat, answer_next=True).removeprefix(END)


# --- the models


def test_pythia_trains_and_answers_and_takes_its_template_along(workspace: Workspace, pythia: Path, tmp_path: Path):
    job, said = _trained(workspace, pythia)
    result = said[-1].result
    assert result["heldout_after"] < result["heldout_before"]
    assert (job.adapter / "chat_template.jinja").read_text() == PLAIN
    engine = Engine.load(pythia, job.adapter, "fp32")
    chats = {side: CHAT[:2] for side in ("before", "after")}
    answers = [d for d in engine.stream(chats, CompareRecipe(max_tokens=4)) if d.done]
    assert {d.side for d in answers} == {"before", "after"} and 256 in engine.stops
    assert engine.proof().max_logit_difference == 0.0

    out = tmp_path / "out"
    done = exporting.exported(exporting.export_job(job, "adapter", "merged", out=str(out)))
    result = exporting.result_of(done)
    assert result["verified"]
    templates = list(out.rglob("chat_template.jinja"))
    assert len(templates) == 2 and {t.read_text() for t in templates} == {PLAIN}, result["files"]
    with pytest.raises(FTError, match="a GGUF of GPTNeoXForCausalLM cannot be written here yet"):
        exporting.exported(exporting.export_job(job, "gguf:F16", out=str(tmp_path / "gguf")))


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["fast", "peft's own"])
def test_gpt2_learns_through_its_conv1d_layers(workspace: Workspace, gpt2: Path, dropout: float) -> None:
    job, said = _trained(workspace, gpt2, dropout=dropout)
    assert said[-1].result["heldout_after"] < said[-1].result["heldout_before"]
    assert (job.adapter / "chat_template.jinja").read_text() == PLAIN
