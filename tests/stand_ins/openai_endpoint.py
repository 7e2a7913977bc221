"""A scripted OpenAI-compatible endpoint on loopback, for what a real one does on bad days. The good days are tested
against llama.cpp's server.

It remembers every request. Replies that were queued are given first; then each request gets a row of its own, and a
request for topics a list of them.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SUBJECTS = ("shipping", "mugs", "espresso", "the roof", "invoices", "decaf", "parking", "vouchers", "dogs", "filters")


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    path: str
    key: str
    body: dict
    at: float


def says(text: str, finish_reason: str = "stop") -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return Reply(body=json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}))


def row(user: str, assistant: str) -> Reply:
    return says(json.dumps({"user": user, "assistant": assistant}))


def refuses(status: int, message: str, code: str = "", **headers: str) -> Reply:
    body = {"error": {"message": message, "code": code or None, "type": "error", "param": None}}
    return Reply(status, json.dumps(body), {name.replace("_", "-"): value for name, value in headers.items()})


class Endpoint:
    def __init__(self, delay_s: float = 0.0, models: tuple[str, ...] = ("first", "second")):
        self.delay_s = delay_s
        self.models = models
        self.key = ""
        """When it is set, requests without it are refused."""
        self.queue: deque[Reply] = deque()
        self.always: Reply | None = None
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._rows = 0

    @property
    def asked(self) -> list[Request]:
        """The requests for a row."""
        return [r for r in self.requests if r.path.endswith("/chat/completions") and not _wants_topics(r.body)]

    def __enter__(self) -> Endpoint:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            if self.key and request.key != self.key:
                return refuses(401, f"Incorrect API key provided: {request.key}.", "invalid_api_key")
            if request.path.endswith("/models"):
                return Reply(body=json.dumps({"object": "list", "data": [{"id": m} for m in self.models]}))
            if _wants_topics(request.body):
                return says(json.dumps({"topics": SUBJECTS}))
            if self.queue:
                return self.queue.popleft()
            if self.always:
                return self.always
            self._rows += 1
            n = self._rows
        time.sleep(self.delay_s)
        subject = SUBJECTS[n % len(SUBJECTS)]
        return row(f"{n * 7919} {subject} {n}?", f"Yes, {subject}, {n} of them.")


def _wants_topics(body: dict) -> bool:
    return "topics" in json.dumps(body.get("response_format", {}))


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict) -> None:
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            reply = endpoint.reply(Request(self.path, key, body, time.monotonic()))
            data = reply.body.encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
