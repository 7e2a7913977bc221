"""Creates the model in a running Ollama, by its HTTP interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama

from ..errors import FTError
from ..events import Note
from ..workspace import on_a_space
from .modelfile import Modelfile
from .start import Wanted
from .verify import Check

ANSWERS_WITHIN_S = 5.0


def create(wanted: Wanted, modelfile: Modelfile, gguf: Path, links: dict[str, str]) -> Iterator[float | Note]:
    """Uploads `gguf` and creates the model from it. Yields the share done and Notes, returns the Checks.

    The name that it got is put into `links` as `ollama`. Where no host was named and none answers, a Note says which
    commands do it. Raises FTError when a host was named and does not answer, and when Ollama refuses.
    """
    name = wanted.file_stem.lower()
    by_hand = Note(f"In {gguf.parent}: ollama create {name} -f Modelfile && ollama run {name}")
    if on_a_space():
        yield Note(f"Download the zip, then: ollama create {name} -f Modelfile && ollama run {name}")
        return []
    where = wanted.host or "the usual address"
    try:
        client = ollama.Client(wanted.host or None)
        _list(client)
    except (ConnectionError, httpx.HTTPError, ollama.ResponseError, ValueError):
        if not wanted.host:
            yield by_hand
            return []
        raise FTError(
            f"no Ollama answers at {where}; the files are whole, in {gguf.parent}",
            f"Start Ollama there, or run in that folder: ollama create {name} -f Modelfile",
        ) from None
    try:
        digest = client.create_blob(gguf)
        yield 0.7
        for said in client.create(
            model=name,
            files={gguf.name: digest},
            template=modelfile.template.text(),
            system=modelfile.system or None,
            parameters=modelfile.parameters,
            license=modelfile.licence or None,
            stream=True,
        ):
            yield 0.9 if said.status == "success" else 0.8
        shown = client.show(name)
    except ollama.ResponseError as error:
        raise FTError(
            f"Ollama at {where} refuses the model: {error.error}", f"The files are whole, in {gguf.parent}."
        ) from None
    except (ConnectionError, httpx.HTTPError) as error:
        raise FTError(
            f"the connection to Ollama at {where} broke off: {error or type(error).__name__}",
            f"The files are whole, in {gguf.parent}. Export again, or create the model there by hand.",
        ) from None
    links["ollama"] = name
    yield Note(f"Ollama has it: ollama run {name}")
    same = shown.template == modelfile.template.text()
    return [Check("Ollama: holds the template that was trained on", "gate", same, 1.0)]


def _list(client: ollama.Client) -> None:
    """Whether it answers at all, and soon."""
    client._client.timeout = httpx.Timeout(ANSWERS_WITHIN_S)
    client.list()
    client._client.timeout = httpx.Timeout(None)  # creating takes as long as it takes
