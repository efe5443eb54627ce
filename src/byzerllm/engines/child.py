"""A child process that serves HTTP on a UNIX socket, kept alive.

Heavy engines live in one of these: a crash, an out-of-memory kill or a hang takes the child
down and not the program, and the child is started again, with growing pauses if it keeps
dying. All of its life is managed on the background loop, whoever asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from byzerllm import portal
from byzerllm.errors import DeployError, EngineDied

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds before the second start in a row, and the most it may grow to: calls wait for it, and
without calls nothing is started."""
HEALTHY_AFTER = 10.0
"""A child that lived this long (seconds) counts as well: the next pause is short again."""


class Child:
    """Starts ``python script`` with ``settings`` on its standard input and keeps it running.

    The child must print a line starting with ``ready`` once it serves on ``settings["socket"]``
    and end when its standard input closes.
    """

    def __init__(
        self,
        script: str,
        settings: Mapping[str, Any],
        *,
        start_timeout: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._script = script
        self._settings = dict(settings)
        self._start_timeout = start_timeout
        self._environment = dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._watching: set[asyncio.Task[None]] = set()
        self._folder = ""
        self._errors: deque[str] = deque(maxlen=40)
        self._starting: asyncio.Task[str] | None = None
        self._started_at = 0.0
        self._pause = 0.0
        self._closed = False
        self.socket = ""
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.alive and self._process else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None and bool(self.socket)

    def update(self, settings: Mapping[str, Any]) -> None:
        """Change the settings that the next start will use."""
        self._settings.update(settings)

    async def ready(self) -> str:
        """The socket of a child that serves, started (again) if need be.

        Raises:
            DeployError: it does not come up; the message carries what it printed.
        """
        return await portal.over(self._ready())

    async def ended(self) -> bool:
        """Has the child ended, or does it within the moment that a kill takes to be seen?"""
        return await portal.over(self._ended())

    async def close(self) -> None:
        """End the child. Safe to call twice."""
        await portal.over(self._close())

    async def _ended(self) -> bool:
        if self._process is None:
            return True
        try:
            await asyncio.wait_for(asyncio.shield(self._process.wait()), 0.5)
        except asyncio.TimeoutError:
            return False
        return True

    async def _ready(self) -> str:
        if self._closed:
            raise EngineDied("The engine was closed")
        if self.alive:
            return self.socket
        if self._starting is None or self._starting.done():
            self._starting = asyncio.ensure_future(self._start())
        return await asyncio.shield(self._starting)

    async def _start(self) -> str:
        if self.starts:
            lived = time.monotonic() - self._started_at
            grown = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
            self._pause = FIRST_PAUSE if lived >= HEALTHY_AFTER else grown
            logger.warning("The engine process ended; starting it again in %.1f s", self._pause)
            await asyncio.sleep(self._pause)
        self.starts += 1
        self._started_at = time.monotonic()
        self._remove_folder()
        # A fresh path in a folder of mode 0700: nobody else can connect, and the stale socket
        # of a child that was killed cannot be in the way.
        self._folder = tempfile.mkdtemp(prefix="byzerllm-")
        socket = f"{self._folder}/engine.sock"  # llama.cpp looks at the ending
        self._errors.clear()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            self._script,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self._environment, **os.environ},  # what the user has set wins
            # Ctrl-C at the terminal is for the program, which then decides what to stop.
            start_new_session=True,
        )
        assert process.stdin and process.stdout and process.stderr
        self._keep(self._collect(process.stderr))
        self._process = process
        try:
            settings = {**self._settings, "socket": socket, "import_path": sys.path}
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            await process.stdin.drain()
            said = await asyncio.wait_for(process.stdout.readline(), self._start_timeout)
        except asyncio.TimeoutError:
            await self._end(process)
            raise DeployError(
                f"The engine process was not ready within {self._start_timeout:g} s"
            ) from None
        except (BrokenPipeError, ConnectionResetError):
            said = b""
        except asyncio.CancelledError:
            await self._end(process)
            raise
        if not said.startswith(b"ready"):
            await self._end(process)
            raise DeployError(f"The engine process did not start: {self._why(said)}")
        if self._closed:
            await self._end(process)
            raise EngineDied("The engine was closed while it started")
        self._keep(self._collect(process.stdout))
        self.socket = socket
        return socket

    def _why(self, said: bytes) -> str:
        reason = said.decode(errors="replace").removeprefix("failed").strip()
        printed = " | ".join(line for line in self._errors if line)
        return "; ".join(part for part in (reason, printed[-1500:]) if part) or "it said nothing"

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _collect(self, output: asyncio.StreamReader) -> None:
        """Keep the child's last lines for error messages, and its pipe empty."""
        while True:
            try:
                line = await output.readline()
            except ValueError:  # a line without end: go on behind it
                continue
            if not line:
                return
            self._errors.append(line.decode(errors="replace").rstrip())

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 2)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()

    def _remove_folder(self) -> None:
        self.socket = ""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    async def _close(self) -> None:
        self._closed = True
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._process is not None:
            await self._end(self._process)
        for task in list(self._watching):
            task.cancel()
        self._remove_folder()
