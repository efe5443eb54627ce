"""Run Python text in this process and catch what it prints.

For trusted text only: code a model wrote belongs into the sandbox.
"""

from __future__ import annotations

import builtins
import contextvars
import io
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, cast


def exec_capture_output(
    code: str, target_names: Mapping[str, Any] | None = None
) -> tuple[int, str, dict[str, Any]]:
    """Run ``code`` and return ``(status, output, variables)``.

    Success is ``(0, printed text, {name: object})`` with those of the requested names that exist
    afterwards, failure ``(1, traceback, {})``.

    >>> exec_capture_output("x = 6 * 7; print(x)", {"x": True})
    (0, '42\\n', {'x': 42})
    """
    variables: dict[str, Any] = {"__builtins__": builtins}
    with _captured() as printed:
        try:
            exec(compile(code, "<code>", "exec", dont_inherit=True), variables)  # noqa: S102
        except (Exception, SystemExit) as error:
            return 1, _traceback_of(error), {}
    found = {name: variables[name] for name in target_names or {} if name in variables}
    return 0, printed.text(), found


def _traceback_of(error: BaseException) -> str:
    """The traceback from the code's first line on, without the line of this module above it."""
    below = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.format_exception(type(error), error, below))


# ---------------------------------------------------------------------------------------------
# sys.stdout belongs to the whole process, so it cannot simply be swapped for one thread's capture:
# prints of the other threads would land there. While a capture is running, sys.stdout and
# sys.stderr are dispatchers instead that look up the capture of the *current context* at each
# write. Functions called by the code and asyncio tasks it starts share its context; other threads
# do not, and write where they always did.


class _Printed(io.TextIOWrapper):
    """A text stream in memory, with a ``buffer`` as a real stdout has one."""

    def __init__(self) -> None:
        self._bytes = _OpenBytes()
        super().__init__(
            cast(Any, self._bytes),
            encoding="utf-8",
            errors="backslashreplace",
            newline="",
            write_through=True,
        )

    def text(self) -> str:
        return self._bytes.getvalue().decode("utf-8", "backslashreplace")


class _OpenBytes(io.BytesIO):
    """Bytes that can still be read after the code closed its stdout."""

    def close(self) -> None:
        pass


_current: contextvars.ContextVar[_Printed | None] = contextvars.ContextVar(
    "printed_text", default=None
)


class _Dispatcher:
    """Stands in for a standard stream: the current context's capture, else the stream itself."""

    def __init__(self, stream: TextIO | None) -> None:
        # A program without a console has None there, and prints to nowhere.
        self._stream = stream if stream is not None else io.StringIO()

    def __getattr__(self, name: str) -> Any:
        return getattr(_current.get() or self._stream, name)


_lock = threading.Lock()
_running = 0
_real: tuple[TextIO, TextIO] = (sys.stdout, sys.stderr)
_dispatching: tuple[TextIO, TextIO] = _real


@contextmanager
def _captured() -> Iterator[_Printed]:
    """Catch what this context prints; the real streams are back when the last capture ends."""
    global _running, _real, _dispatching
    printed = _Printed()
    with _lock:
        if _running == 0:
            _real = (sys.stdout, sys.stderr)
            _dispatching = (
                cast(TextIO, _Dispatcher(sys.stdout)),
                cast(TextIO, _Dispatcher(sys.stderr)),
            )
        _running += 1
        sys.stdout, sys.stderr = _dispatching
    token = _current.set(printed)
    try:
        yield printed
    finally:
        _current.reset(token)
        with _lock:
            _running -= 1
            # Put back even if the code replaced the streams itself.
            sys.stdout, sys.stderr = _dispatching if _running else _real
