"""What the pipeline asks of the world, and the two drivers that do it.

The pipeline is written once, as generators that yield effects. A plain call drives them in
the caller's thread and crosses to the background loop only to reach a worker; an async call
drives them on its own loop.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

from byzerllm import portal
from byzerllm.errors import CallTimeout

T = TypeVar("T")
END: Any = object()
"""What :class:`Next` gives when the stream is over."""


class Effect:
    """Something to be done for a pipeline: ``run`` for plain callers, ``arun`` for async ones."""

    def run(self) -> Any:
        raise NotImplementedError

    async def arun(self) -> Any:
        raise NotImplementedError


Steps = Generator[Effect, Any, T]
"""A piece of the pipeline that results in a ``T``."""


class StreamClosed(BaseException):
    """Thrown into a streaming pipeline when its reader has gone."""


class Await(Effect):
    """Await something that lives on event loops."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._work = work

    def run(self) -> Any:
        return portal.run(self._work())

    async def arun(self) -> Any:
        return await self._work()


class Sleep(Effect):
    """Wait this many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self) -> None:
        time.sleep(self.seconds)

    async def arun(self) -> None:
        await asyncio.sleep(self.seconds)


class Handle(Effect):
    """Run a handler: in the caller's thread on plain calls, on a thread of its own on async ones.

    An async handler runs on the loop of an async call, and on the background loop otherwise.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        args: tuple[Any, ...],
        timeout: float | None = None,
        label: str = "handler",
    ) -> None:
        self._handler = handler
        self._args = args
        self._timeout = timeout
        self._label = label

    def run(self) -> Any:
        if self._timeout is not None:
            return portal.run(self._in_time())
        result = self._handler(*self._args)
        return portal.run(_awaited(result)) if inspect.isawaitable(result) else result

    async def arun(self) -> Any:
        return await self._in_time()

    async def _in_time(self) -> Any:
        if self._timeout is None:
            return await self._call()
        try:
            return await asyncio.wait_for(self._call(), self._timeout)
        except asyncio.TimeoutError as error:
            if isinstance(error, CallTimeout):
                raise
            raise CallTimeout(f"{self._label} took longer than {self._timeout} s") from None

    async def _call(self) -> Any:
        if inspect.iscoroutinefunction(self._handler):
            return await self._handler(*self._args)
        result = await portal.in_thread(lambda: self._handler(*self._args))
        return await result if inspect.isawaitable(result) else result


async def _awaited(result: Awaitable[T]) -> T:
    return await result


class Source(Generic[T]):
    """A stream as the pipeline holds it: read by :class:`Next`, ended by :class:`Close`."""

    def __init__(self, make: Callable[[], AsyncIterator[T]]) -> None:
        self.make = make
        self.feed: portal.Feed[T] | None = None
        self.items: AsyncIterator[T] | None = None

    def abandon(self) -> None:
        """End it where nobody can wait for that: the pipeline itself is being collected."""
        if self.feed is not None:
            self.feed.close(wait=False)


class Next(Effect):
    """The next item of a source, or :data:`END`. One object serves a whole stream."""

    def __init__(self, source: Source[Any]) -> None:
        self._source = source

    def run(self) -> Any:
        source = self._source
        if source.feed is None:
            source.feed = portal.Feed(source.make)
        try:
            return source.feed.next()
        except StopAsyncIteration:
            return END

    async def arun(self) -> Any:
        source = self._source
        if source.items is None:
            source.items = source.make()
        try:
            return await source.items.__anext__()
        except StopAsyncIteration:
            return END


class Close(Effect):
    """End a source and wait until it has let go of its worker."""

    def __init__(self, source: Source[Any]) -> None:
        self._source = source

    def run(self) -> None:
        if self._source.feed is not None:
            self._source.feed.close()

    async def arun(self) -> None:
        close = getattr(self._source.items, "aclose", None)
        if close is not None:
            await close()


class Emit(Effect):
    """Hand an item to the reader of a stream. The drivers of streams do it; where the reader
    has gone there is nothing to do."""

    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item

    def run(self) -> None:
        return

    async def arun(self) -> None:
        return


def drive(steps: Steps[T], effect: Effect | None = None) -> T:
    """Run a pipeline for a plain caller; ``effect`` is where it stands, if it has begun."""
    try:
        effect = effect or next(steps)
        while True:
            try:
                value = effect.run()
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(value)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def adrive(steps: Steps[T], effect: Effect | None = None) -> T:
    """Run a pipeline for an async caller."""
    try:
        effect = effect or next(steps)
        while True:
            try:
                value = await effect.arun()
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(value)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def drive_stream(steps: Steps[Any]) -> Iterator[Any]:
    """Run a streaming pipeline for a plain reader; closing the iterator runs through it."""
    try:
        effect = next(steps)
        while True:
            try:
                if type(effect) is Emit:
                    yield effect.item
                    value = None
                else:
                    value = effect.run()
            except GeneratorExit:
                with suppress(StopIteration, StreamClosed):
                    drive(steps, steps.throw(StreamClosed()))
                return
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(value)
    except StopIteration:
        return


async def adrive_stream(steps: Steps[Any]) -> AsyncIterator[Any]:
    """Run a streaming pipeline for an async reader."""
    try:
        effect = next(steps)
        while True:
            try:
                if type(effect) is Emit:
                    yield effect.item
                    value = None
                else:
                    value = await effect.arun()
            except GeneratorExit:
                with suppress(StopIteration, StreamClosed):
                    await adrive(steps, steps.throw(StreamClosed()))
                raise
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(value)
    except StopIteration:
        return
