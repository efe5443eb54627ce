"""End running work from outside: by deadline, by ``abort`` or because its model goes away.

``asyncio.timeout`` does the first of these from Python 3.11 on; here one small class does all
three on every supported Python.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Interrupt:
    """Awaits that can be ended with an error of our choice; entered once for each of them.

    ::

        interrupt = Interrupt(seconds=5, late=CallTimeout("…"))
        try:
            with interrupt:
                await work()
        finally:
            interrupt.close()

    Between two blocks (while a stream's reader is busy elsewhere) no time is counted and nothing
    is cancelled: after ``end`` the next block raises the reason at once, and ``when_idle`` is
    called so that the source can be stopped meanwhile.
    """

    def __init__(
        self,
        seconds: float | None = None,
        late: Exception | None = None,
        when_idle: Callable[[], None] | None = None,
    ) -> None:
        self._seconds = seconds
        self._late = late
        self._when_idle = when_idle
        self._reason: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._entered = 0.0
        self._used = 0.0
        """Seconds spent inside the blocks."""

    def __enter__(self) -> Self:
        if self._reason is not None:
            raise self._reason
        self._task = asyncio.current_task()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if self._seconds is not None:
            self._entered = self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds - self._used, self._ring)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._loop is not None and self._seconds is not None:
            self._used += self._loop.time() - self._entered
        if self._reason is None or kind is None:
            return
        if issubclass(kind, asyncio.CancelledError):
            uncancel = getattr(task, "uncancel", None)  # Python 3.11 counts cancellations
            if uncancel is not None and uncancel() > 0:
                return  # somebody else has cancelled the task too, and that goes on
            raise self._reason from None

    def _ring(self) -> None:
        """The time is up, unless some of it passed between two blocks: then there is more.

        One timer serves a whole stream; setting one for each block would cost every token.
        """
        self._timer = None
        if self._task is None or self._loop is None or self._seconds is None:
            return  # the next block sets another
        left = self._seconds - self._used - (self._loop.time() - self._entered)
        if left > 0.001:
            self._timer = self._loop.call_later(left, self._ring)
        elif self._late is not None:
            self._fire(self._late)

    def _fire(self, reason: Exception) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        if self._task is not None:
            self._task.cancel()
        elif self._when_idle is not None:
            self._when_idle()

    def end(self, reason: Exception) -> None:
        """End the work with this error, from any thread."""
        if self._loop is None or self._loop.is_closed():
            self._reason = self._reason or reason
        else:
            self._loop.call_soon_threadsafe(self._fire, reason)

    def close(self) -> None:
        """The work is over: forget the deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
