"""A provider under test control: a real HTTP server on loopback that does what a test says.

It speaks HTTP by hand, so that it can also break it. Each answer is a list of steps: bytes are
sent as they are, a number waits that many seconds, and ``HANG``, ``CLOSE`` and ``RESET`` say how
the connection goes on. A test queues answers with :meth:`WireServer.will`; without any the
server answers as a provider would.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest


class Step(NamedTuple):
    name: str


HANG = Step("hang")
"""Say nothing more until the client leaves."""
CLOSE = Step("close")
"""End the connection."""
RESET = Step("reset")
"""Break the connection."""

Steps = Sequence[bytes | float | Step]


@dataclass
class Received:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """The number of the connection it came on."""
    left: threading.Event = field(default_factory=threading.Event)
    """Set when the client closed the connection before it had the whole answer."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Steps | bytes | Callable[[Received], Steps | bytes]


class WireServer:
    """Serves until :meth:`close`, on a thread of its own."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        """Everything but the questions for the list of models."""
        self.checks: list[Received] = []
        """Those: deploying asks one."""
        self.connections = 0
        """How many there were."""
        self.open = 0
        """How many there are."""
        self._queues: dict[str, deque[Answer]] = defaultdict(deque)
        self._always: dict[str, Answer] = {}
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    # -- what tests say ---------------------------------------------------------------------

    def will(self, *answers: Answer, path: str = "/chat/completions") -> None:
        """Answer the next requests for this path like this, one each."""
        self._queues[path].extend(answers)

    def always(self, answer: Answer, path: str = "/chat/completions") -> None:
        """Answer every request for this path like this."""
        self._always[path] = answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # -- the server -------------------------------------------------------------------------

    def _serve(self, started: threading.Event) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        self._connections: set[_Connection] = set()
        listening = loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1000)
        self._server = loop.run_until_complete(listening)
        self.port: int = self._server.sockets[0].getsockname()[1]
        loop.call_soon(started.set)
        loop.run_forever()
        self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    def answer_to(self, request: Received) -> Steps:
        path = request.path.partition("?")[0].removeprefix("/v1")
        queue = self._queues[path]
        answer = queue.popleft() if queue else self._always.get(path, usual)
        if callable(answer):
            answer = answer(request)
        return [answer] if isinstance(answer, bytes) else answer


@pytest.fixture
def wire() -> Iterator[WireServer]:
    """A provider on loopback that answers as the test says."""
    server = WireServer()
    yield server
    server.close()


class _Connection(asyncio.Protocol):
    def __init__(self, server: WireServer) -> None:
        self._wire = server
        self._buffer = b""
        self._number = next(_numbers)
        self._request: Received | None = None
        self._task: asyncio.Task[None] | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._wire._connections.add(self)
        self._wire.connections += 1
        self._wire.open += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._wire._connections.discard(self)
        self._wire.open -= 1
        if self._task is not None and self._request is not None:
            self._request.left.set()
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, _ = first.split(" ")
        request = self._request = Received(method, path, headers, rest[:length], self._number)
        self._wire.checks.append(request) if method == "GET" else self._wire.requests.append(
            request
        )
        self._task = asyncio.get_running_loop().create_task(self._play(request))

    async def _play(self, request: Received) -> None:
        for step in self._wire.answer_to(request):
            if isinstance(step, bytes):
                self.transport.write(step)
                await asyncio.sleep(0)
            elif isinstance(step, (int, float)):
                await asyncio.sleep(step)
            elif step is HANG:
                await asyncio.Event().wait()
            else:
                self._task = None
                if step is RESET:
                    # To linger for no time is to say RST instead of FIN.
                    raw = self.transport.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.transport.abort()
                self.transport.close()
                return
        self._task = None


_numbers = itertools.count(1)

# -- answers ------------------------------------------------------------------------------------


def whole(
    body: Any, status: int | str = 200, kind: str = "application/json", **headers: str
) -> bytes:
    """A complete answer; a body that is not bytes is written as JSON."""
    if not isinstance(body, bytes):
        body = json.dumps(body, ensure_ascii=False).encode()
    lines = [f"HTTP/1.1 {status if isinstance(status, str) else f'{status} Status'}"]
    lines += [f"Content-Type: {kind}"] if kind else []
    lines += [f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chat(text: Any, **more: Any) -> bytes:
    """A chat completion."""
    return whole(completion(text, **more))


def completion(text: Any, *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-7",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
    }


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


END = chunk(b"")


def event(data: Any) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


def piece(text: str = "", *, finish: str | None = None, index: int = 0, **delta: Any) -> bytes:
    """One event of a chat stream."""
    choice = {"index": index, "delta": {"content": text, **delta}, "finish_reason": finish}
    return event({"id": "chatcmpl-7", "choices": [choice]})


DONE = event("[DONE]")


def counts(given: int = 12, made: int = 3) -> bytes:
    usage = {"prompt_tokens": given, "completion_tokens": made}
    return event({"id": "chatcmpl-7", "choices": [], "usage": usage})


def stream(*events: bytes | float | Step) -> list[bytes | float | Step]:
    """A streamed answer, each event in a packet of its own."""
    steps = [chunk(step) if isinstance(step, bytes) else step for step in events]
    return [HEAD, *steps, END]


def says(*texts: str) -> list[bytes | float | Step]:
    """A whole chat stream."""
    return stream(*map(piece, texts), piece(finish="stop"), counts(), DONE)


def usual(request: Received) -> Steps | bytes:
    """What a provider answers: an echo of the last message, vectors, scores."""
    if request.method == "GET":
        return whole({"object": "list", "data": [{"id": "m"}]})
    asked = request.json
    if request.path.endswith("/embeddings"):
        rows = [
            {"index": place, "embedding": [float(len(text)), 0.5]}
            for place, text in enumerate(asked["input"])
        ]
        return whole({"data": rows[::-1], "usage": {"prompt_tokens": 7}})
    if request.path.endswith("/rerank"):
        rows = [
            {"index": place, "relevance_score": 1 / (1 + len(text))}
            for place, text in enumerate(asked["documents"])
        ]
        rows.sort(key=lambda row: -row["relevance_score"])
        return whole({"results": rows})
    said = asked["messages"][-1]["content"] if "messages" in asked else asked["prompt"]
    if not asked.get("stream"):
        return chat(f"echo {said}")
    return says("echo ", *said)
