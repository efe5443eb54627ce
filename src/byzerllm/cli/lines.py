"""Lines from the person or the pipe, with editing and a history where there is a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from byzerllm.config import home
from byzerllm.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from byzerllm.cli.screen import Screen

KEPT = 1000
"""Lines of the history that outlive the session."""
ENDS = ("/end", "/eof")


class Lines:
    """Reads what is typed; ``with`` loads the history and saves it."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._readline = _readline() if screen.person and screen.shows else None

    @property
    def file(self) -> Path:
        """Where the history is; only its owner can read it."""
        return home() / "chat_history"

    def __enter__(self) -> Self:
        if self._readline is not None:
            with contextlib.suppress(OSError):
                self._readline.read_history_file(str(self.file))
            # Only what is said to the model is kept, not the answers of a person to a request.
            self._readline.set_auto_history(False)
        return self

    def __exit__(self, *error: object) -> None:
        if self._readline is None:
            return
        self._readline.set_history_length(KEPT)
        with contextlib.suppress(OSError):  # a history is a comfort: never a reason to fail
            self.file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.file, os.O_CREAT | os.O_WRONLY, 0o600))
            self.file.chmod(0o600)
            self._readline.write_history_file(str(self.file))

    def read(self, prompt: str = "") -> str:
        """The next line.

        Raises:
            EOFError: there is none.
            ConfigError: it is not text.
        """
        if not self._screen.person:
            prompt = ""
        elif not self._screen.shows:
            sys.stderr.write(prompt)
            sys.stderr.flush()
            prompt = ""
        try:
            line = input(prompt)
            line.encode()
        except UnicodeError as error:
            raise ConfigError(f"The input is not UTF-8 text: {error}") from error
        if self._readline is not None and line.strip():
            self._readline.add_history(line)
        return line

    def read_many(self) -> str:
        """Lines up to ``/end``, or the end of input."""
        lines: list[str] = []
        with contextlib.suppress(EOFError):
            while (line := self.read()).strip() not in ENDS:
                lines.append(line)
        return "\n".join(lines)


def _readline() -> ModuleType | None:
    try:
        import readline  # where it is, input() uses it
    except ImportError:
        return None
    return readline
