"""Local servers that speak the protocols of the Hugging Face Hub and of Ollama, and remember what they were told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import fastapi
import uvicorn


@contextlib.contextmanager
def serving(app: fastapi.FastAPI, port: int = 0) -> Iterator[str]:
    """The address of `app`, served on 127.0.0.1 from a thread."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError(f"the stand-in could not listen on port {port}")
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def serve_forever(app: fastapi.FastAPI, port: int) -> None:
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="info")
