"""Templates of many families, taken apart and written for Ollama: by our own hand and by Go's own template package."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import trl

from ft_core.conversation import Message
from ft_core.errors import FTError
from ft_core.export.modelfile import BATTERY, Modelfile, Template, printable
from ft_core.export.turns import Ends, Turns
from ft_core.render import Renderer
from tests.stand_ins.ollama import parse_modelfile

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
FAMILIES = ("qwen2_5", "qwen3", "qwen3_instruct_2507", "llama3", "llama3_1", "llama3_2")


def needs_go(test):
    """Go is a Debian package (golang-go), and nothing else here wants it."""
    return test if shutil.which("go") else pytest.mark.oracle(test)


@pytest.fixture(scope="session")
def smol(builtin: Path) -> Renderer:
    return Renderer.of(builtin)


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory):
    """Renders templates in one process of Go: (template, system, messages) -> texts."""
    program = tmp_path_factory.mktemp("go") / "gotmpl"
    source = Path(__file__).parents[1] / "gotmpl"
    subprocess.run(["go", "build", "-o", program, "."], cwd=source, check=True, timeout=300)

    def render(template: str, system: str, chats: list[tuple[Message, ...]]) -> list[str]:
        inputs = [
            {
                "Template": template,
                "System": system,
                "Messages": [{"Role": m.role, "Content": m.content} for m in chat],
            }
            for chat in chats
        ]
        text = "\n".join(json.dumps(i) for i in inputs)
        answer = subprocess.run([program], input=text, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
        return [json.loads(line) for line in answer.stdout.splitlines()]

    return render


def renderer_of(smol: Renderer, family: str) -> Renderer:
    if family == "built-in":
        return smol
    special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    return dataclasses.replace(smol, template=(TEMPLATES / f"{family}.jinja").read_text(), special=special)


def wanted(renderer: Renderer, system: str, chat: tuple[Message, ...]) -> str:
    head = (Message("system", system),) if system and chat[0].role != "system" else ()
    return renderer.text((*head, *chat), answer_next=True)


@pytest.mark.parametrize("system", ["", "You are the help desk."])
@pytest.mark.parametrize("family", ["built-in", *FAMILIES])
def test_our_hand_writes_what_the_tokenizer_writes(smol: Renderer, family: str, system: str) -> None:
    renderer = renderer_of(smol, family)
    turns = Turns.of(renderer)
    system = system or turns.default_system or ""
    for chat in BATTERY:
        assert Template(turns, runtime_opens=False).rendered(chat, system) == wanted(renderer, system, chat)


@needs_go
@pytest.mark.parametrize("family", ["built-in", *FAMILIES])
def test_go_writes_what_the_tokenizer_writes(smol: Renderer, family: str, go) -> None:
    renderer = renderer_of(smol, family)
    turns = Turns.of(renderer)
    for system in (turns.default_system or "", "You are the help desk."):
        texts = go(Template(turns, runtime_opens=False).text(), system, list(BATTERY))
        assert texts == [wanted(renderer, system, chat) for chat in BATTERY]


@needs_go
def test_go_takes_braces_in_a_template_as_text(smol: Renderer, go) -> None:
    template = (
        "{% for m in messages %}{{ '{{' + m.role + '}}' + m.content + '{{/}}' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '{{assistant}}' }}{% endif %}"
    )
    renderer = dataclasses.replace(smol, template=template)
    turns = Turns.of(renderer)
    assert turns.roles["user"].before == "{{user}}"
    assert go(Template(turns, runtime_opens=False).text(), "", list(BATTERY)) == [
        wanted(renderer, "", chat) for chat in BATTERY
    ]


def test_the_builtin_taken_apart(smol: Renderer) -> None:
    turns = Turns.of(smol)
    ends = Ends.of(smol)
    assert (ends.end, ends.end_id, ends.opening, turns.opening) == ("<|im_end|>", 2, "", "")
    assert turns.default_system == "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert Turns.of(renderer_of(smol, "qwen3")).default_system is None
    assert Turns.of(renderer_of(smol, "llama3")).opening == "<|begin_of_text|>"


@pytest.mark.parametrize("family", ["phi3", "gemma"])
def test_a_template_that_cannot_be_taken_apart_is_refused(smol: Renderer, family: str) -> None:
    with pytest.raises(FTError, match="template"):
        Turns.of(renderer_of(smol, family))


def modelfile(smol: Renderer, system: str) -> Modelfile:
    turns = Turns.of(smol)
    return Modelfile(
        "fjord-Q4_K_M.gguf",
        Template(turns, runtime_opens=False),
        system,
        {"stop": list(Ends.of(smol).stops)},
        "apache-2.0",
    )


@pytest.mark.parametrize(
    "system", ["One line.", 'She said "yes"', "Two\n\nlines\n", '"', '""', "\t tab", "# no comment", "{{ .Braces }}"]
)
def test_ollama_reads_what_was_written(smol: Renderer, system: str) -> None:
    written = modelfile(smol, system)
    found = dict(parse_modelfile(written.text()))
    assert found["system"] == system
    assert found["template"] == written.template.text()
    assert (found["from"], found["stop"]) == ("./fjord-Q4_K_M.gguf", "<|im_end|>")


def test_three_quotes_cannot_be_written(smol: Renderer) -> None:
    with pytest.raises(FTError, match="system prompt contains"):
        modelfile(smol, 'Answer in """ quotes').text()


def test_white_space_that_ollama_drops_becomes_plain(smol: Renderer) -> None:
    french = "Bonjour\u00a0! Ça va\u202f?\u200b"
    assert printable(french) == "Bonjour ! Ça va ?"
    assert dict(parse_modelfile(modelfile(smol, french).text()))["system"] == "Bonjour ! Ça va ?"


def test_a_template_without_an_ending_token_stops_at_its_text(smol: Renderer) -> None:
    template = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n{% endfor %}"
    assert Ends.of(dataclasses.replace(smol, template=template)).stops == ("### user:",)
