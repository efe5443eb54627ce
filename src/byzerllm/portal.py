"""One background event loop, so that plain code can call what is asynchronous.

Sync callers cross to it once a call; async callers never do. The loop's thread is a daemon:
it starts with the first call and never keeps a program from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def loop() -> asyncio.AbstractEventLoop:
    """The background loop, started on first use."""
    global _loop
    if _loop is not None:
        return _loop
    with _lock:
        if _loop is None:
            fresh = asyncio.new_event_loop()
            started = threading.Event()

            def serve() -> None:
                asyncio.set_event_loop(fresh)
                fresh.call_soon(started.set)
                fresh.run_forever()

            threading.Thread(target=serve, name="byzerllm-portal", daemon=True).start()
            started.wait()
            _loop = fresh
    return _loop


def _forget_after_fork() -> None:
    # The thread did not survive the fork; its loop would never answer again.
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and wait for it; Ctrl-C cancels it."""
    target = loop()
    if threading.current_thread().name == "byzerllm-portal":
        work.close()
        raise RuntimeError(
            "A plain (sync) call was made from the event loop that would have to serve it; "
            "await the async_ twin of the same name instead"
        )
    future = asyncio.run_coroutine_threadsafe(work, target)
    try:
        return future.result()
    except BaseException:
        # KeyboardInterrupt reaches this thread only: the work must hear of it too.
        future.cancel()
        raise


async def over(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` on the background loop, whichever loop we are on.

    What must outlive a caller's loop (child processes above all) lives there.
    """
    target = loop()
    if asyncio.get_running_loop() is target:
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, target))


class Abandoned:
    """Tells work on a thread that nobody waits for its result any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tell: list[Callable[[], None]] = []
        self.yes = False

    def add(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when it happens, at once if it has."""
        with self._lock:
            if not self.yes:
                self._tell.append(tell)
                return
        tell()

    def set(self) -> None:
        with self._lock:
            self.yes, told = True, self._tell
        for tell in told:
            tell()


abandoned: contextvars.ContextVar[Abandoned | None] = contextvars.ContextVar(
    "byzerllm_abandoned", default=None
)
"""Of the work that runs in this context, if it can be left alone at all."""


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking ``work`` on a daemon thread of its own, with the caller's context.

    An executor will not do: a person may be asked in there, and an executor's thread that
    waits for input keeps the program from ending.
    """
    here = asyncio.get_running_loop()
    done: asyncio.Future[T] = here.create_future()
    left = Abandoned()
    context = contextvars.copy_context()
    context.run(abandoned.set, left)

    def report(error: BaseException | None, value: Any = None) -> None:
        if done.done():
            return
        if isinstance(error, StopIteration):  # a future does not take this one
            error = RuntimeError(f"StopIteration: {error}")
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)

    def serve() -> None:
        outcome: tuple[Any, ...]
        try:
            outcome = (None, context.run(work))
        except BaseException as error:
            outcome = (error,)
        with contextlib.suppress(RuntimeError):  # nobody waits: the loop is closed
            here.call_soon_threadsafe(report, *outcome)

    threading.Thread(target=serve, name="byzerllm-handler", daemon=True).start()
    try:
        return await done
    except asyncio.CancelledError:
        left.set()
        raise


class Feed(Generic[T]):
    """An async iterator read from plain code: one thread hop for many items.

    The loop reads ahead by at most ``ahead`` items, so a slow reader slows the source.
    """

    _END = object()

    def __init__(self, make: Callable[[], AsyncIterator[T]], ahead: int = 512) -> None:
        self._make = make
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ahead = ahead
        self._room: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._settled = threading.Event()
        self._done = False
        self._loop = loop()
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._pump(self._make))
        self._task.add_done_callback(lambda _: self._settled.set())

    async def _pump(self, make: Callable[[], AsyncIterator[T]]) -> None:
        room = self._room = asyncio.Event()
        source = make()
        put, count, ahead = self._items.put, self._items.qsize, self._ahead
        try:
            async for item in source:
                put(item)
                if count() >= ahead:
                    room.clear()
                    # Looked at again after clear(): the reader may have emptied it meanwhile.
                    if count() >= ahead:
                        await room.wait()
            put(self._END)
        except BaseException as error:
            put(_Failure(error))
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            await _close(source)

    def next(self) -> T:
        """The next item; ``StopAsyncIteration`` at the end, the source's error where it failed."""
        if self._done:
            raise StopAsyncIteration
        item = self._items.get()
        room = self._room
        if room is not None and not room.is_set() and self._items.qsize() <= self._ahead // 2:
            self._loop.call_soon_threadsafe(room.set)
        if item is self._END:
            self._done = True
            raise StopAsyncIteration
        if isinstance(item, _Failure):
            self._done = True
            raise item.error
        return item  # type: ignore[no-any-return]

    def close(self) -> None:
        """Stop the source and wait until it has let go. Safe to call twice."""
        self._done = True
        if not self._settled.is_set():
            self._loop.call_soon_threadsafe(self._cancel)
            self._settled.wait()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _close(source: AsyncIterator[Any]) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
