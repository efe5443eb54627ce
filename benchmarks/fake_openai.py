"""An OpenAI-compatible server that does nothing else: its cost must not hide the client's."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from typing import Any

WORDS = ["word "] * 64
REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The capital of Germany is Berlin."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17},
    }
).encode()

MODELS = b'{"object": "list", "data": []}'


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
    return b"data: " + json.dumps({**body, "choices": [choice]}).encode() + b"\n\n"


EVENTS = [
    _chunk({"role": "assistant", "content": ""}),
    *(_chunk({"content": word}) for word in WORDS),
    _chunk({}, "stop"),
    b"data: [DONE]\n\n",
]
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Answering(asyncio.Protocol):
    """Answers each request on a kept-alive connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            lines = head.lower().split(b"\r\n")
            length = next(
                (int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0
            )
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            if head.startswith(b"GET"):
                self.transport.write(JSON_HEAD % len(MODELS) + MODELS)
            elif b'"stream":true' in body.replace(b" ", b""):
                self.transport.write(STREAM_HEAD)
                for event in EVENTS:
                    self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
                self.transport.write(b"0\r\n\r\n")
            else:
                self.transport.write(JSON_HEAD % len(REPLY) + REPLY)


def _serve(port: Any) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(main())


def start() -> str:
    """Start the server in a process of its own; its base URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(theirs,), daemon=True).start()
    return f"http://127.0.0.1:{ours.recv()}/v1"
