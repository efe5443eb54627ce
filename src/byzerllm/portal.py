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
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def loop() -> asyncio.AbstractEventLoop:
    """The background loop, started on first use."""
    global _loop, _thread
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

            _thread = threading.Thread(target=serve, name="byzerllm-portal", daemon=True)
            _thread.start()
            started.wait()
            _loop = fresh
    return _loop


def _forget_after_fork() -> None:
    # The thread did not survive the fork; its loop would never answer again.
    global _loop, _lock, _thread
    _loop, _lock, _thread = None, threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _refuse_to_wait_for_ourselves() -> None:
    if threading.current_thread() is _thread:
        raise RuntimeError(
            "A plain (sync) call was made from the event loop that would have to serve it; "
            "await the async_ twin of the same name instead"
        )


async def _outcome(work: Coroutine[Any, Any, T]) -> T | _Failure:
    """What came of the work. A loop ends when SystemExit leaves a task, and nothing may do that
    to this one, so every failure travels as a value."""
    try:
        return await work
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return _Failure(error)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and wait for it; Ctrl-C cancels it."""
    target = loop()
    try:
        _refuse_to_wait_for_ourselves()
    except RuntimeError:
        work.close()
        raise
    future = asyncio.run_coroutine_threadsafe(_outcome(work), target)
    try:
        outcome = future.result()
    except BaseException:
        # KeyboardInterrupt reaches this thread only: the work must hear of it too.
        future.cancel()
        raise
    if isinstance(outcome, _Failure):
        raise outcome.error
    return outcome


async def over(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` on the background loop, whichever loop we are on.

    What must outlive a caller's loop (child processes above all) lives there.
    """
    target = loop()
    if asyncio.get_running_loop() is target:
        return await work
    future = asyncio.run_coroutine_threadsafe(_outcome(work), target)
    outcome = await asyncio.wrap_future(future)
    if isinstance(outcome, _Failure):
        raise outcome.error
    return outcome


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

    The loop reads ahead by at most ``ahead`` items, so a slow reader slows the source. A feed
    that nobody holds any more stops its source.
    """

    def __init__(self, make: Callable[[], AsyncIterator[T]], ahead: int = 512) -> None:
        self._pump = _Pump(make, ahead)
        self._done = False
        self._loop = loop()
        self._loop.call_soon_threadsafe(self._pump.start)
        weakref.finalize(self, self._pump.cancel_from_anywhere, self._loop).atexit = False

    def next(self) -> T:
        """The next item; ``StopAsyncIteration`` at the end, the source's error where it failed."""
        if self._done:
            raise StopAsyncIteration
        _refuse_to_wait_for_ourselves()
        pump = self._pump
        item = pump.items.get()
        room = pump.room
        if room is not None and not room.is_set() and pump.items.qsize() <= pump.ahead // 2:
            self._loop.call_soon_threadsafe(room.set)
        if item is _END:
            self._done = True
            raise StopAsyncIteration
        if isinstance(item, _Failure):
            self._done = True
            raise item.error
        return item  # type: ignore[no-any-return]

    def close(self, *, wait: bool = True) -> None:
        """Stop the source, and wait until it has let go. Safe to call twice."""
        self._done = True
        if not self._pump.settled.is_set():
            self._pump.cancel_from_anywhere(self._loop)
            if wait and threading.current_thread() is not _thread:
                self._pump.settled.wait()


_END: Any = object()


class _Pump:
    """The half of a feed that lives on the loop; it knows nothing of its reader."""

    def __init__(self, make: Callable[[], AsyncIterator[Any]], ahead: int) -> None:
        self._make = make
        self.ahead = ahead
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.room: asyncio.Event | None = None
        self.settled = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(lambda _: self.settled.set())

    async def _work(self) -> None:
        room = self.room = asyncio.Event()
        source = self._make()
        put, count, ahead = self.items.put, self.items.qsize, self.ahead
        try:
            async for item in source:
                put(item)
                if count() >= ahead:
                    room.clear()
                    # Looked at again after clear(): the reader may have emptied it meanwhile.
                    if count() >= ahead:
                        await room.wait()
            put(_END)
        except BaseException as error:
            put(_Failure(error))
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            await _close(source)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def cancel_from_anywhere(self, target: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing runs there
            target.call_soon_threadsafe(self._cancel)


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _close(source: AsyncIterator[Any]) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
