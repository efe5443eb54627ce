"""Hosted models from the command line, played by a server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Open, Run

KEY = "sk-right"


class Provider(BaseHTTPRequestHandler):
    """Speaks just enough of the OpenAI wire to hold a conversation."""

    asked: list[dict[str, Any]]

    def do_GET(self) -> None:
        if self._allowed():
            self._send(json.dumps({"data": []}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        self.asked.append(body)
        texts = ["Good ", f"day \x1b[31m{len(body['messages'])}"]
        chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        chunks.append({"choices": [], "usage": usage})
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        self._send("".join([*lines, "data: [DONE]\n\n"]), "text/event-stream")

    def _allowed(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {KEY}":
            return True
        self._send(json.dumps({"error": {"message": "Wrong key"}}), status=401)
        return False

    def _send(self, text: str, kind: str = "application/json", status: int = 200) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[ThreadingHTTPServer]:
    handler = type("Recording", (Provider,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def hosted(server: ThreadingHTTPServer, *more: str) -> list[str]:
    address = f"saas.base_url=http://127.0.0.1:{server.server_port}/v1"
    return ["--pretrained_model_type", "saas/openai", "--infer_params", address, *more]


def asked(server: ThreadingHTTPServer) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = server.RequestHandlerClass.asked  # type: ignore[attr-defined]
    return requests


def test_chat_keeps_the_history_and_takes_the_key_from_the_environment(
    cli: Run, provider: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    done = cli("chat", *hosted(provider, "saas.model=big"), "--system", "Be kind.", says="a\nb\n")

    assert done.stdout == "Good day \x1b[31m2\nGood day \x1b[31m4\n", done.stderr
    first, second = asked(provider)
    assert first["model"] == "big"
    assert first["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "a"},
    ]
    assert [message["content"] for message in second["messages"]] == [
        "Be kind.",
        "a",
        "Good day \x1b[31m2",
        "b",
    ]


def test_query_takes_the_key_from_a_flag_too(cli: Run, provider: ThreadingHTTPServer) -> None:
    args = hosted(provider, f"saas.api_key={KEY}", "saas.model=big")

    done = cli("query", "--model", "any", "--query", "a", *args)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Good day")


def test_a_wrong_key_is_one_line_without_the_key(cli: Run, provider: ThreadingHTTPServer) -> None:
    done = cli("query", "--model", "any", "--query", "a", *hosted(provider, "saas.api_key=sk-bad"))

    assert done.returncode == 1
    assert "Wrong key" in done.stderr
    assert "sk-bad" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_terminal_gets_no_control_characters_of_a_model(
    terminal: Open, provider: ThreadingHTTPServer
) -> None:
    screen = terminal("chat", *hosted(provider, f"saas.api_key={KEY}"))

    screen.expect("you> ")
    screen.type("a")
    screen.expect("Good day �[31m1")
    screen.expect("2 tokens")
    screen.expect("you> ")
    screen.press("d")
    assert screen.leave() == 0
    assert KEY not in screen.raw


def test_an_error_at_a_terminal_leaves_the_conversation_open(
    terminal: Open, provider: ThreadingHTTPServer
) -> None:
    screen = terminal("chat", *hosted(provider, f"saas.api_key={KEY}", "saas.max_retries=0"))
    screen.expect("you> ")
    provider.shutdown()
    provider.socket.close()

    screen.type("a")

    screen.expect("error: No connection")
    screen.expect("you> ")
    screen.type("/exit")
    assert screen.leave() == 0
