"""The worker: one engine and the checks that every request to it passes.

The embedded runtime holds workers in this process, a cluster holds the same class in its
actors; what passes here passes there. Cancelling a call, or closing a stream, ends it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from byzerllm.errors import Unsupported
from byzerllm.types.engine import Engine, StreamItem
from byzerllm.types.records import (
    Chunk,
    Embed,
    Generate,
    Meta,
    RenderChat,
    Reply,
    Request,
    Rerank,
    Tokenize,
)
from byzerllm.types.sampling import Sampling, for_engine, read


class Worker:
    """Runs requests on one engine; thread-safe as far as its engine is."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def call(self, request: Request) -> Reply:
        """The whole answer to one request."""
        started = time.perf_counter()
        reply = await self._dispatch(request)
        if reply.seconds is None:
            reply.seconds = time.perf_counter() - started
        return reply

    async def _dispatch(self, request: Request) -> Reply:
        engine = self.engine
        if isinstance(request, Generate):
            sampling = self._sampling(request)
            reply = await engine.generate(request, sampling)
            reply.request_id = sampling.request_id or reply.request_id
            return reply
        if isinstance(request, Embed):
            return await engine.embed(request.texts, for_engine(request.params))
        if isinstance(request, Rerank):
            return await engine.rerank(request.pairs, for_engine(request.params))
        if isinstance(request, Tokenize):
            return Reply(await engine.tokenize(request.text))
        if isinstance(request, RenderChat):
            return Reply(await engine.render_chat(request.messages))
        if isinstance(request, Meta):
            return Reply(await engine.meta())
        raise TypeError(f"{request!r} is not a request")

    async def stream(self, request: Generate) -> AsyncIterator[StreamItem]:
        """The answer piece by piece; closing the iterator ends the work."""
        sampling = self._sampling(request)
        source = self.engine.stream(request, sampling)
        try:
            async for item in source:
                if sampling.request_id and isinstance(item, Chunk):
                    item.request_id = sampling.request_id
                yield item
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    def _sampling(self, request: Generate) -> Sampling:
        sampling = read(request.params)
        accepts = self.engine.accepts
        if accepts is not None:
            unknown = [name for name in sampling.values if name not in accepts]
            if unknown:
                raise Unsupported(
                    f"The {self.engine.name} engine does not know the generation setting "
                    f"{', '.join(map(repr, unknown))}; it knows {', '.join(sorted(accepts))}. "
                    "Settings meant for callbacks start with 'hook.'"
                )
        return sampling
