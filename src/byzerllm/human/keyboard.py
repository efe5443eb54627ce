"""The one keyboard of this process: whose turn it is to ask, and lines that come too late.

``input()`` cannot be interrupted from outside. Where the one who asked is gone before the line
comes (a cancelled async call), the reading goes on and its line goes to the next who asks.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from byzerllm import portal
from byzerllm.errors import CallAborted


class Reading:
    """One ``input()`` under way on a thread of its own."""

    def __init__(self, prompt: str) -> None:
        self.over = threading.Event()
        self.wake = self.over
        self.line = ""
        self.error: BaseException | None = None
        threading.Thread(target=self._read, args=(prompt,), daemon=True).start()

    def _read(self, prompt: str) -> None:
        # Where the program ends while this thread waits, Python would close standard input
        # under it and abort; a reference in a frame that never ends keeps it open.
        held = sys.stdin
        try:
            self.line = input(prompt)
        except BaseException as error:
            self.error = error
        del held
        self.over.set()
        self.wake.set()

    def result(self) -> str:
        if self.error is not None:
            raise self.error
        return self.line


class Keyboard:
    """Turns at the keyboard, first come first served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: deque[threading.Event] = deque()
        self._left: Reading | None = None
        """A reading whose asker is gone."""

    @contextmanager
    def turn(self) -> Iterator[int]:
        """Wait for the turn; gives the number of those who wait behind."""
        mine = threading.Event()
        with self._lock:
            self._line.append(mine)
            if len(self._line) == 1:
                mine.set()
        try:
            mine.wait()
            asker = portal.abandoned.get()
            if asker is not None and asker.yes:
                raise CallAborted("The call gave up waiting for a person")
            yield len(self._line) - 1
        finally:
            with self._lock:
                self._line.remove(mine)
                if self._line:
                    self._line[0].set()

    def read(self, prompt: str) -> str:
        """One line, in one's turn."""
        asker = portal.abandoned.get()
        main = threading.current_thread() is threading.main_thread()
        if main and asker is None and self._left is None:
            return input(prompt)  # Ctrl-C and debuggers work
        reading, self._left = self._left, None
        if reading is None:
            reading = Reading(prompt)
        elif not reading.over.is_set():
            print(prompt, end="", flush=True)  # the reading that waits showed another's
        if asker is not None:
            reading.wake = threading.Event()
            asker.add(reading.wake.set)
            if reading.over.is_set():
                reading.wake.set()
        else:
            reading.wake = reading.over
        try:
            reading.wake.wait()
        finally:
            # A line that came in the moment its asker left goes to the next one too.
            gone = asker is not None and asker.yes
            if gone or not reading.over.is_set():
                self._left = reading
        if gone or not reading.over.is_set():
            raise CallAborted("The call gave up waiting for a person")
        return reading.result()


KEYBOARD = Keyboard()


def read_line(prompt: str = "") -> str:
    """One line of a person, by whatever ``input`` is now.

    Raises:
        EOFError, OSError: the input has ended, or there is none.
    """
    return KEYBOARD.read(prompt)
