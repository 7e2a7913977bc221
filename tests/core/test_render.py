"""What the model sees, and what of it is learnt: against transformers, and against TRL's templates of many models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jinja2
import pytest
import trl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from ft_core.conversation import Conversation, Message
from ft_core.errors import FTError
from ft_core.render import IGNORED, Renderer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"


def said(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, text) for role, text in turns))


ONE = said(("user", "Do you ship to Norway?"), ("assistant", "Yes, in four days."))
SYSTEM = said(("system", "You are Fjord."), *((m.role, m.content) for m in ONE.messages))
TURNS = said(
    ("system", "You are Fjord."), ("user", "Hei 👋🏽"), ("assistant", "Hei! 👩‍👩‍👧 ok\n\n- a"), ("user", ""),
    ("assistant", " Yes "), ("user", "bye"),
)  # fmt: skip
FIRST = said(("assistant", "Welcome."), ("user", "Hi"), ("assistant", "Hello."))
CONVERSATIONS = {"one": ONE, "system": SYSTEM, "turns": TURNS, "first": FIRST}


@pytest.fixture(scope="session")
def tokenizer(builtin: Path):
    return AutoTokenizer.from_pretrained(builtin)


def with_template(renderer: Renderer, template: str) -> Renderer:
    return Renderer(renderer.tokenizer, template, {**renderer.special, "bos_token": "<s>", "eos_token": "</s>"})


def learnt(renderer: Renderer, conversation: Conversation, max_length: int | None = None) -> list[str]:
    """The runs of learnt tokens, as text."""
    example = renderer.example(conversation, max_length)
    assert all(label in (IGNORED, id) for id, label in zip(example.ids, example.labels))
    runs: list[list[int]] = []
    for before, label in zip((IGNORED, *example.labels), example.labels):
        if label != IGNORED:
            runs += [[]] if before == IGNORED else []
            runs[-1].append(label)
    return [renderer.tokenizer.decode(run, skip_special_tokens=False) for run in runs]


# --- the built-in model


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("answer_next", [False, True])
def test_text_and_ids_are_those_of_transformers(renderer, tokenizer, name, answer_next):
    messages = CONVERSATIONS[name].messages
    plain = [m.to_dict() for m in messages]
    text = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=answer_next)
    ids = tokenizer.apply_chat_template(plain, add_generation_prompt=answer_next, return_dict=True)["input_ids"]
    assert renderer.text(messages, answer_next) == text
    assert renderer.ids(text) == ids
    if answer_next:
        assert renderer.prompt(messages) == ids
    else:
        assert list(renderer.example(CONVERSATIONS[name]).ids) == ids


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(("system", "user", "assistant", "tool")), st.text(max_size=30)), min_size=1))
def test_any_conversation_is_that_of_transformers(renderer, tokenizer, turns):
    conversation = said(*turns)
    plain = [m.to_dict() for m in conversation.messages]
    example = renderer.example(conversation)
    assert list(example.ids) == tokenizer.apply_chat_template(plain, return_dict=True)["input_ids"]
    counts = renderer.counts(conversation)
    assert (counts.tokens, counts.learnt()) == (len(example.ids), example.learnt)
    assert all(example.labels[i] != IGNORED for run in counts.runs for i in range(*run))
    answers = "".join(text for role, text in turns if role == "assistant")
    assert (example.learnt > 0) == any(role == "assistant" for role, _ in turns)
    # What the vocabulary has no token for (half of a letter, some control characters) is learnt as unknown.
    if all(character.isascii() and character.isprintable() for character in answers):
        assert "".join(learnt(renderer, conversation)) == "".join(
            f"{text}<|im_end|>\n" for role, text in turns if role == "assistant"
        )


GOLDEN = {
    "one": ["Yes, in four days.<|im_end|>\n"],
    "system": ["Yes, in four days.<|im_end|>\n"],
    "turns": ["Hei! 👩‍👩‍👧 ok\n\n- a<|im_end|>\n", " Yes <|im_end|>\n"],
    "first": ["Welcome.<|im_end|>\n", "Hello.<|im_end|>\n"],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_learnt_is_what_the_assistant_says_and_the_end_of_its_turn(renderer, name):
    assert learnt(renderer, CONVERSATIONS[name]) == GOLDEN[name]


def test_the_prompt_of_an_example_is_what_the_model_is_asked_with(renderer):
    """Learnt tokens come exactly where generation would begin: nothing merges across the boundary."""
    example = renderer.example(SYSTEM)
    first = next(i for i, label in enumerate(example.labels) if label != IGNORED)
    assert list(example.ids[:first]) == renderer.prompt(SYSTEM.messages[:-1])


@pytest.mark.parametrize("keep", [1, 5, 20, 45, 60, 1000])
def test_cutting_counts_what_is_lost(renderer, keep):
    whole, cut = renderer.example(TURNS), renderer.example(TURNS, keep)
    assert cut.ids == whole.ids[:keep] and cut.labels == whole.labels[:keep]
    assert cut.cut == max(0, len(whole.ids) - keep)
    assert cut.learnt + cut.cut_learnt == whole.learnt
    assert renderer.counts(TURNS).learnt(keep) == cut.learnt


def test_special_tokens_in_a_text_stay_what_transformers_makes_of_them(renderer, tokenizer):
    odd = said(("user", "<|im_end|>"), ("assistant", "<|im_start|>user\nno<|im_end|>"))
    plain = [m.to_dict() for m in odd.messages]
    assert list(renderer.example(odd).ids) == tokenizer.apply_chat_template(plain, return_dict=True)["input_ids"]
    assert learnt(renderer, odd) == ["<|im_start|>user\nno<|im_end|><|im_end|>\n"]


# --- templates of other models


def all_templates() -> list[str]:
    return sorted(path.name for path in TEMPLATES.glob("*.jinja"))


@pytest.mark.parametrize("name", all_templates())
def test_templates_write_what_transformers_makes_of_them(renderer, name):
    source = (TEMPLATES / name).read_text()
    ours = with_template(renderer, source)
    for conversation in CONVERSATIONS.values():
        for answer_next in (False, True):
            plain = [m.to_dict() for m in conversation.messages]
            try:
                (text,), _ = chat_template_utils.render_jinja_template(
                    [plain], chat_template=source, add_generation_prompt=answer_next, **ours.special
                )
            except jinja2.TemplateError as error:
                with pytest.raises(FTError) as refused:
                    ours.text(conversation.messages, answer_next)
                assert error.message in refused.value.message
            else:
                assert ours.text(conversation.messages, answer_next) == text


ANSWERS = ["First answer.", "Second 😀 one."]
SEVERAL = said(("user", "a"), ("assistant", ANSWERS[0]), ("user", "QUESTION"), ("assistant", ANSWERS[1]))
# Vision models whose templates want parts, and say nothing of text.
UNWRITTEN = ("idefics3", "smolvlm", "llava_next")


@pytest.mark.parametrize("name", [name for name in all_templates() if not name.startswith(UNWRITTEN)])
def test_answers_are_found_in_every_template(renderer, name):
    """Also where the last turn is written otherwise than the others (Phi, Qwen 3, gpt-oss)."""
    runs = learnt(with_template(renderer, (TEMPLATES / name).read_text()), SEVERAL)
    assert len(runs) == 2
    for run, answer in zip(runs, ANSWERS):
        # The full stop may share a token with what follows, which this tokenizer does not know as special.
        before, found, after = run.partition(answer[:-1])
        assert found and "QUEST" not in before
        assert "QUEST" not in after and len(after) < 50


MARKED = [
    "cohere2",
    "gemma",
    "gemma3",
    "glm4moe",
    "lfm2",
    "llama3",
    "qwen2_5_vl",
    "qwen3",
    "qwen3_instruct_2507",
    "qwen3_vl",
]


@pytest.mark.parametrize("name", MARKED)
def test_spans_are_those_that_generation_marks(renderer, name):
    """TRL marks in its templates what is to be learnt; without looking at the marks the same comes out."""
    source = (TEMPLATES / f"{name}_training.jinja").read_text()
    ours = with_template(renderer, source)
    text, spans = chat_template_utils._render_with_assistant_indices(
        chat_template_utils._compile_jinja_template(source),
        [m.to_dict() for m in SEVERAL.messages], None, None, False, **ours.special,
    )  # fmt: skip
    encoded = renderer.tokenizer.encode(text, add_special_tokens=False)
    expected = [
        id if a < b and any(start <= a and b <= end for start, end in spans) else IGNORED
        for id, (a, b) in zip(encoded.ids, encoded.offsets)
    ]
    assert list(ours.example(SEVERAL).labels) == expected


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_instruct_2507", "llama3_1"])
def test_tools_and_calls_are_written_as_transformers_writes_them_and_a_call_is_learnt(renderer, tokenizer, name):
    source = (TEMPLATES / f"{name}.jinja").read_text()
    ours = with_template(renderer, source)
    tools = [{"type": "function", "function": {"name": "price", "description": "of a thing", "parameters": {}}}]
    call = {"type": "function", "function": {"name": "price", "arguments": {"of": "tea"}}}
    turns = [
        {"role": "user", "content": "What is tea?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "4 euro", "name": "price"},
        {"role": "assistant", "content": "Four euro."},
    ]
    conversation = Conversation.from_dict({"messages": turns, "tools": tools})
    theirs, _ = chat_template_utils.render_jinja_template([turns], tools, chat_template=source, **ours.special)
    assert ours.text(conversation.messages, tools=conversation.tools) == theirs[0]
    call_learnt, answer_learnt = learnt(ours, conversation)
    assert '"of": "tea"' in call_learnt and "Four euro." in answer_learnt


@pytest.mark.parametrize("name", ["smolvlm", "idefics3"])
def test_a_template_that_leaves_answers_out_is_refused(renderer, name):
    with pytest.raises(FTError, match="leaves out"):
        with_template(renderer, (TEMPLATES / f"{name}.jinja").read_text()).example(ONE)


def test_a_template_refuses_in_its_own_words(renderer):
    gemma = with_template(renderer, (TEMPLATES / "gemma.jinja").read_text())
    with pytest.raises(FTError, match="System role not supported"):
        gemma.example(SYSTEM)
    with pytest.raises(FTError, match="refuses it"):
        with_template(renderer, "{% for m in messages %}").text(ONE.messages)
    with pytest.raises(FTError, match="refuses it"):
        with_template(renderer, "{{ messages.append(1) }}").text(ONE.messages)  # the sandbox


def test_a_template_that_rewrites_everything_is_refused(renderer):
    each = "{% for m in messages %}{{ m.role }}:\n{{ m.content }}\n{% endfor %}"
    assert learnt(with_template(renderer, "{{ messages | length }}\n" + each), SEVERAL)[0].startswith("First answer")
    with pytest.raises(FTError, match="rewrites earlier turns"):
        with_template(renderer, "{{ messages | join(attribute='content') | length }}\n" + each).example(SEVERAL)


# --- model folders


def test_folders(builtin, renderer, tmp_path):
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    for name in names:
        shutil.copy(builtin / name, tmp_path / name)
    assert Renderer.of(tmp_path).template == renderer.template

    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    assert Renderer.of(tmp_path).plain and not renderer.plain  # test_render_base.py
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": named, "bos_token": {"content": "<b>"}})
    )
    assert Renderer.of(tmp_path).template == "yes" and Renderer.of(tmp_path).special["bos_token"] == "<b>"

    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    short = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**saved, "truncation": short}))
    assert Renderer.of(tmp_path).ids("one two three four five six") == renderer.ids("one two three four five six")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FTError, match="no tokenizer.json"):
        Renderer.of(tmp_path)
