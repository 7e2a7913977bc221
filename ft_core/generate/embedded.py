"""A llama.cpp server inside this process: a teacher that needs no endpoint, no key and no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import FTError
from ..machine import this_machine

PARALLEL = 2
"""Conversations that it writes at once; on two cores a third one only slows the others."""
CONTEXT = 2048
"""Tokens of each conversation, prompt included: what the built-in model was trained for."""


@contextmanager
def serve(gguf: Path) -> Iterator[str]:
    """The base URL of an OpenAI-compatible server of this model, on 127.0.0.1 and a free port.

    It answers up to PARALLEL requests at once and queues the rest. Raises FTError when llama.cpp cannot load the file.
    """
    import xllamacpp  # native code: the pages, which import this room, never load it

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_parallel = PARALLEL
    params.n_ctx = CONTEXT * PARALLEL  # the slots share it
    params.port = 0
    params.ui = False
    params.cors_origins = "http://127.0.0.1"  # its default lets any web page ask
    params.verbosity = 1  # errors, into the job's log
    for threads in (params.cpuparams, params.cpuparams_batch):
        # llama.cpp's threads spin while they wait for each other: with one for every core, any other work on the
        # machine (the page, a test) makes it ten times slower; with one core left over it does not.
        threads.n_threads = max(1, this_machine().cores - 1)
        threads.poll = 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise FTError(f"llama.cpp cannot load {gguf.name}: {error}", "Is the file whole, and a chat model?") from None
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server  # the last reference: llama.cpp ends its threads and frees the model
