"""A teacher: any model behind an OpenAI-compatible endpoint, asked through the openai client.

The client takes a second to import, so it is imported when a teacher is first asked: pages and the command line
import this module for nothing.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .conversation import Message
from .errors import FTError
from .workspace import on_a_space

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion


@dataclass(frozen=True)
class Answer:
    """What the teacher wrote, without its thinking."""

    text: str
    finish_reason: str
    """stop when it came to its end by itself, length when it was cut off."""
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Teacher:
    """`model` empty is the first one that the endpoint offers. Can be asked from several threads."""

    base_url: str
    model: str = ""
    api_key: str = field(default="", repr=False)
    timeout_s: float = 180.0
    """Longest wait for one answer."""
    retries: int = 4
    """How often the client tries again when the line breaks, the endpoint limits the rate (after the Retry-After that
    it names) or answers with 5xx."""

    @cached_property
    def _client(self) -> openai.OpenAI:
        import openai

        # Without a key the client would look for one in the environment and send it to whatever endpoint this is.
        return openai.OpenAI(
            base_url=address(self.base_url),
            api_key=self.api_key or "none",
            timeout=self.timeout_s,
            max_retries=self.retries,
        )

    @cached_property
    def _model(self) -> str:
        """Raises openai.APIError, or FTError when the endpoint offers no model."""
        if self.model:
            return self.model
        offered = self._client.models.list().data
        if not offered:
            raise FTError(f"{self.base_url} offers no model", "Load one there, or name the model.")
        return offered[0].id

    def ask(
        self,
        messages: Sequence[Message],
        temperature: float,
        max_tokens: int,
        seed: int,
        schema: dict[str, Any] | None = None,
    ) -> Answer:
        """One answer; with `schema` (JSON Schema) the endpoint is asked to hold the teacher to it.

        Raises FTError with a sentence for each way in which it can go wrong; none of them shows the key.
        """
        import openai

        held = {"name": "answer", "strict": True, "schema": schema}
        try:
            completion = self._client.chat.completions.create(
                model=self._model,
                messages=[m.to_dict() for m in messages],  # type: ignore[misc]
                temperature=temperature,
                max_tokens=max_tokens,
                seed=seed,
                response_format={"type": "json_schema", "json_schema": held} if schema else openai.omit,
            )
        except openai.APIError as error:
            raise self._sentence(error) from None
        except json.JSONDecodeError:
            raise self._no_answer() from None
        return self._answer(completion)

    def _answer(self, completion: ChatCompletion) -> Answer:
        # The client builds its types without checking them, and hands out a page of HTML as a str.
        choices = getattr(completion, "choices", None)
        if not choices or not choices[0].message:
            raise self._no_answer()
        usage = completion.usage
        return Answer(
            text=without_thinking(choices[0].message.content or ""),
            finish_reason=choices[0].finish_reason or "",
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
        )

    def _no_answer(self) -> FTError:
        return FTError(
            f"{self.base_url} answered with something that is not a chat completion",
            "Give the address of an OpenAI-compatible endpoint; most end in /v1.",
        )

    def _sentence(self, error: openai.APIError) -> FTError:
        """The client's error in words for people."""
        import openai

        said = _said(error)
        if self.api_key:
            said = said.replace(self.api_key, "[key]")
        match error:
            case openai.APITimeoutError():
                return FTError(
                    f"{self.base_url} did not answer within {self.timeout_s:g} seconds",
                    "It may be loading its model, or be too busy. Resume asks for what is missing.",
                )
            case openai.APIConnectionError():
                return FTError(
                    f"{self.base_url} cannot be reached", "Is the server running, and is the address right?"
                )
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                refused = "refuses the key" if self.api_key else "wants a key"
                return FTError(
                    f"{self.base_url} {refused} (HTTP {error.status_code})", "Give the key of this endpoint."
                )
            case openai.NotFoundError():
                what = f"has no model {self.model!r}" if self.model else "has no chat completions"
                return FTError(f"{self.base_url} {what}: {said}", "Check the name of the model and the address.")
            case openai.RateLimitError() if error.code == "insufficient_quota":
                return FTError(f"{self.base_url}: the account has no credit left", "Top it up, then resume.")
            case openai.RateLimitError():
                return FTError(
                    f"{self.base_url} limits how often it can be asked, and {self.retries + 1} tries were too many",
                    "Wait a little, then resume: only what is missing is asked for.",
                )
            case openai.InternalServerError():
                return FTError(
                    f"{self.base_url} failed (HTTP {error.status_code}): {said}", "Look at its log, then resume."
                )
        return FTError(f"{self.base_url} refuses the request: {said}", "Change what it names, or take another model.")


def address(text: str) -> str:
    """The endpoint's base URL; `/v1` is added where there is no path.

    Raises FTError for what is no http address, or holds a secret: addresses are kept in recipes.
    """
    try:
        parts = urlsplit(text.strip())
        whole = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
        whole = whole and not any(letter.isspace() for letter in parts.netloc)
    except ValueError:  # a port that is no number, brackets that do not close
        whole = False
    if not whole:
        raise FTError(  # without the text: people paste keys into the wrong field
            "the address of the teacher is not the address of an endpoint",
            "It begins with http:// or https://, for example http://127.0.0.1:11434/v1.",
        )
    if parts.username or parts.password or parts.query:
        raise FTError("the address of the teacher holds a name, a password or a query", "Give the key as a key.")
    return parts._replace(path=parts.path.rstrip("/") or "/v1").geturl()


def persons_address(text: str) -> str:
    """`address` of what a person gave. On a Space also raises FTError for what lies beside the app, or behind it."""
    checked = address(text)
    if on_a_space() and not _is_public(urlsplit(checked).hostname or ""):
        raise FTError(
            "the address of the teacher lies in a private network, which a Space does not reach into",
            "Give an endpoint on the Internet, or run FT Flow on your own machine.",
        )
    return checked


def _is_public(host: str) -> bool:
    """Whether every address of `host` is one of the Internet: strangers must not ask what lies beside the app."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return True  # it cannot be reached, and asking it says so
    return all(ipaddress.ip_address(entry[4][0].partition("%")[0]).is_global for entry in found)


def without_thinking(text: str) -> str:
    """What comes after </think>; nothing when the thinking was cut off. Some endpoints leave out the opening mark."""
    rest = text.rpartition("</think>")[2].strip()
    return "" if rest.startswith("<think>") else rest


def _said(error: openai.APIError) -> str:
    """The endpoint's own words, as short as they fit into a sentence."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(said or error.message).split())[:300]
