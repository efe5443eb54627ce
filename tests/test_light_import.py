"""``import byzerllm`` is light: nothing big is loaded, nothing is opened, nothing is started."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TypedDict

import pytest

HEAVY = {
    "aiohttp",
    "anthropic",
    "click",
    "fastapi",
    "httpx",
    "jinja2",
    "msgspec",
    "numpy",
    "openai",
    "PIL",
    "platformdirs",
    "pydantic",
    "ray",
    "rich",
    "torch",
    "transformers",
    "vllm",
    "xllamacpp",
}

PROBE = """
import json, sys, threading

events = []

def watch(event, arguments):
    program = ("subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system")
    if event.startswith(("socket.", "_thread.start", "pty.", *program)):
        events.append(event)

before = set(sys.modules)
sys.addaudithook(watch)
exec(sys.argv[1])
print(json.dumps({
    "loaded": sorted(set(sys.modules) - before),
    "events": events,
    "threads": threading.active_count(),
}))
"""


class Seen(TypedDict):
    loaded: list[str]
    events: list[str]
    threads: int


def run(code: str) -> Seen:
    """Run ``code`` in a new interpreter and tell what it loaded, opened and started."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, code], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    seen: Seen = json.loads(done.stdout)
    return seen


@pytest.mark.parametrize(
    "code",
    [
        "import byzerllm",
        "from byzerllm import ByzerLLM; ByzerLLM()",
        "from byzerllm.utils.client import ByzerLLM; ByzerLLM()",
    ],
)
def test_importing_and_constructing_is_light(code: str) -> None:
    seen = run(code)

    assert HEAVY.intersection(seen["loaded"]) == set()
    assert seen["events"] == []
    assert seen["threads"] == 1


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("import socket; socket.socket().close()", "socket.__new__"),
        ("import subprocess, sys; subprocess.run([sys.executable, '-c', ''])", "subprocess.Popen"),
        ("import os; os.fork() or os._exit(0)", "os.fork"),
        ("import os; os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)", "os.posix_spawn"),
    ],
)
def test_the_probe_sees_sockets_and_processes(code: str, event: str) -> None:
    assert event in run(code)["events"]


def test_the_probe_sees_modules_and_threads() -> None:
    seen = run(
        "import aiohttp, threading as t; t.Thread(target=t.Event().wait, daemon=True).start()"
    )

    assert "aiohttp" in seen["loaded"]
    assert seen["threads"] == 2
