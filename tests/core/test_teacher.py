"""The teacher against llama.cpp's own server, and against an endpoint that has bad days."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ft_core.conversation import Message
from ft_core.errors import FTError
from ft_core.generate import embedded
from ft_core.teacher import Teacher, address, persons_address, without_thinking
from ft_core.workspace import builtin_gguf
from tests.stand_ins.openai_endpoint import Endpoint, Reply, refuses, says

KEY = "sk-a-key-that-nobody-may-see"
HELLO = (Message("user", "Hello"),)


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    with embedded.serve(builtin_gguf()) as url:
        yield url


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as endpoint:
        yield endpoint


def ask(teacher: Teacher, **more) -> str:
    return teacher.ask(HELLO, temperature=0.5, max_tokens=20, seed=1, **more).text


def sentence(teacher: Teacher) -> str:
    """What a person would read."""
    with pytest.raises(FTError) as caught:
        ask(teacher)
    text = f"{caught.value.message} | {caught.value.hint}"
    assert KEY not in text
    assert KEY not in repr(teacher)
    assert caught.value.__suppress_context__ or not caught.value.__context__  # no trace shows the request either
    return text


def test_llama_answers_in_the_schema(llama: str) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": ["red", "green"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    answer = Teacher(llama).ask((Message("user", "Which colour?"),), 0.9, 40, 3, schema)
    assert json.loads(answer.text)["colour"] in ("red", "green")
    assert answer.finish_reason == "stop"
    assert answer.prompt_tokens > 10 and 0 < answer.completion_tokens < 40


def test_llama_cuts_off_and_says_so(llama: str) -> None:
    answer = Teacher(llama).ask((Message("user", "Tell me a long story."),), 0, 8, 0)
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 8)


def test_llama_is_asked_twice_with_the_same_seed(llama: str) -> None:
    asked = [Teacher(llama).ask((Message("user", "Name an animal."),), 1.0, 12, seed).text for seed in (5, 5, 6)]
    assert asked[0] == asked[1] != asked[2]


def test_llama_refuses_what_does_not_fit(llama: str) -> None:
    with pytest.raises(FTError, match="context size"):
        Teacher(llama).ask((Message("user", "word " * 3000),), 0, 8, 0)


def test_a_file_that_is_no_model(tmp_path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"nonsense" * 50)
    with pytest.raises(FTError, match="cannot load bad.gguf"), embedded.serve(bad):
        pass


def test_without_a_name_the_first_model_is_asked(endpoint: Endpoint) -> None:
    ask(Teacher(endpoint.url))
    ask(Teacher(endpoint.url, "second"))
    assert [r.body["model"] for r in endpoint.asked] == ["first", "second"]


def test_no_model_at_all(endpoint: Endpoint) -> None:
    endpoint.models = ()
    assert "offers no model" in sentence(Teacher(endpoint.url))


def test_a_key_of_the_environment_is_not_sent(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ask(Teacher(endpoint.url, "m"))
    assert endpoint.requests[0].key == "none"


def test_a_refused_key(endpoint: Endpoint) -> None:
    endpoint.key = "another one"
    assert "refuses the key (HTTP 401)" in sentence(Teacher(endpoint.url, "m", KEY))
    assert endpoint.requests[-1].key == KEY
    assert "wants a key" in sentence(Teacher(endpoint.url, "m"))


def test_a_key_in_the_endpoints_own_words_is_blotted_out(endpoint: Endpoint) -> None:
    endpoint.always = refuses(400, f"{KEY} may not do this")
    assert "[key] may not do this" in sentence(Teacher(endpoint.url, "m", KEY))


def test_an_unknown_model(endpoint: Endpoint) -> None:
    endpoint.always = refuses(404, "The model `m` does not exist", "model_not_found")
    assert "has no model 'm'" in sentence(Teacher(endpoint.url, "m", KEY))


def test_a_limit_of_rate_is_waited_for_as_the_endpoint_says(endpoint: Endpoint) -> None:
    endpoint.queue.append(refuses(429, "slow down", retry_after="1.5"))
    assert ask(Teacher(endpoint.url, "m"))
    first, second = endpoint.requests
    assert 1.4 < second.at - first.at < 4


def test_a_limit_of_rate_that_does_not_end(endpoint: Endpoint) -> None:
    endpoint.always = refuses(429, "slow down", retry_after="0.1")
    assert "limits how often it can be asked, and 3 tries" in sentence(Teacher(endpoint.url, "m", KEY, retries=2))
    assert len(endpoint.requests) == 3


def test_no_credit(endpoint: Endpoint) -> None:
    endpoint.always = refuses(429, "You exceeded your current quota", "insufficient_quota", retry_after="0.1")
    assert "no credit left" in sentence(Teacher(endpoint.url, "m", KEY, retries=0))


def test_a_server_error_is_tried_again_and_then_told(endpoint: Endpoint) -> None:
    endpoint.queue.extend([refuses(500, "out of memory"), says("fine")])
    assert ask(Teacher(endpoint.url, "m")) == "fine"
    endpoint.always = refuses(500, "out of memory")
    assert "failed (HTTP 500): out of memory" in sentence(Teacher(endpoint.url, "m", KEY, retries=0))


def test_a_server_that_is_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "cannot be reached" in sentence(Teacher(f"http://127.0.0.1:{port}", "m", KEY, retries=0))


def test_a_server_that_does_not_answer(endpoint: Endpoint) -> None:
    endpoint.delay_s = 2
    teacher = Teacher(endpoint.url, "m", KEY, timeout_s=0.3, retries=0)
    assert "did not answer within 0.3 seconds" in sentence(teacher)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body="{ half a"),
        Reply(body="[]"),
        Reply(body='{"choices": []}'),
        Reply(body="<html>Welcome</html>", headers={"Content-Type": "text/html"}),
    ],
    ids=["half", "list", "no choice", "page"],
)
def test_an_answer_that_is_none(endpoint: Endpoint, reply: Reply) -> None:
    endpoint.always = reply
    assert "not a chat completion" in sentence(Teacher(endpoint.url, "m", KEY))


def test_thinking_is_left_out() -> None:
    assert without_thinking("<think>\nhm\n</think>\n\nYes.") == "Yes."
    assert without_thinking("hm, or so\n</think>Yes.") == "Yes."
    assert without_thinking("<think> and never an end") == ""
    assert without_thinking(" Yes. ") == "Yes."


def test_addresses() -> None:
    assert address("http://127.0.0.1:11434") == "http://127.0.0.1:11434/v1"
    assert address(" https://example.org/api/v1/ ") == "https://example.org/api/v1"
    for wrong in ("", "example.org/v1", "file:///etc/passwd", "ftp://example.org", "http://a b/v1", "http://a:b/v1"):
        with pytest.raises(FTError, match="not the address"):
            address(wrong)
    for secret in (f"https://me:{KEY}@example.org/v1", f"https://example.org/v1?key={KEY}"):
        with pytest.raises(FTError) as caught:
            address(secret)
        assert KEY not in caught.value.message + caught.value.hint


def test_nothing_heavy_is_imported_with_it() -> None:
    code = (
        "import sys, ft_core.teacher, ft_core.generate.synthesize;"
        " print([m for m in ('openai', 'xllamacpp', 'torch', 'transformers', 'httpx') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.7", "169.254.169.254", "[::1]"])
def test_on_a_space_no_address_beside_the_app_is_asked(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert persons_address(f"http://{host}/v1")
    monkeypatch.setenv("SPACE_ID", "somebody/ft-flow")
    with pytest.raises(FTError, match="private network"):
        persons_address(f"http://{host}/v1")
    assert persons_address("http://8.8.8.8/v1")
