"""The command line as people and scripts meet it: a program of its own, piped or at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
Open = Callable[..., "Terminal"]

BYZERLLM = [sys.executable, "-m", "byzerllm"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty BYZERLLM_HOME; nothing started from here can fetch from the network."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("BYZERLLM_HOME", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("OPENAI_API_KEY", "NO_COLOR", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def stocked(home: Path, smollm2: Path) -> Path:
    """Return a BYZERLLM_HOME that holds the real model."""
    place = home / "models" / "smollm2" / smollm2.name
    place.parent.mkdir(parents=True)
    place.symlink_to(smollm2)
    return home


@pytest.fixture
def cli(home: Path) -> Run:
    """Run ``byzerllm …`` with pipes and return what came of it."""

    def run(
        *args: str, says: str = "", program: list[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*(program or BYZERLLM), *args], input=says, capture_output=True, text=True, timeout=50
        )

    return run


@pytest.fixture
def terminal(home: Path) -> Iterator[Open]:
    """Open ``byzerllm …`` at a terminal."""
    opened: list[Terminal] = []

    def open_one(*args: str, program: list[str] | None = None) -> Terminal:
        opened.append(Terminal([*(program or BYZERLLM), *args]))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


# Makes the terminal that the program has as its input the one whose Ctrl-C reaches it.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
# Escape sequences: those with parameters, titles and clipboards, and the short ones.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>])")
_HALF_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?)?$")


class Terminal:
    """A program at a pseudo-terminal, and the person who types there."""

    def __init__(self, command: list[str]) -> None:
        self._here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self._program = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *command],
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(there)
        self.raw = ""
        """Everything the program wrote, escape sequences included."""
        self._read_to = 0
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        while True:
            try:
                data = os.read(self._here, 65536)
            except OSError:  # the program has closed its side
                return
            if not data:
                return
            self.raw += data.decode("utf-8", "replace")

    @property
    def screen(self) -> str:
        """What a person sees, more or less."""
        return _ESCAPES.sub("", _HALF_ESCAPE.sub("", self.raw)).replace("\r", "")

    def type(self, line: str) -> None:
        os.write(self._here, line.encode() + b"\r")

    def press(self, key: str) -> None:
        """Press Ctrl and a letter."""
        os.write(self._here, bytes([ord(key.upper()) - 64]))

    def expect(self, text: str, seconds: float = 50) -> str:
        """Wait for a text; return what came before it and after the last text waited for."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            screen = self.screen
            found = screen.find(text, self._read_to)
            if found >= 0:
                before = screen[self._read_to : found]
                self._read_to = found + len(text)
                return before
            time.sleep(0.02)
        pytest.fail(f"{text!r} did not come; the screen:\n{self.screen}", pytrace=False)

    def leave(self, seconds: float = 10) -> int:
        """Wait for the program's end and return its exit code."""
        code = self._program.wait(seconds)
        self._reader.join(seconds)
        return code

    def close(self) -> None:
        if self._program.poll() is None:
            self._program.kill()
            self._program.wait(10)
        self._reader.join(5)
        os.close(self._here)
