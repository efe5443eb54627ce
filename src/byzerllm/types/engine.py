"""The protocol every engine speaks: one model's abilities, each of them optional."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from byzerllm.errors import Unsupported
from byzerllm.types.records import Chunk, Generate, Message, PromptProgress, Reply
from byzerllm.types.sampling import Sampling

StreamItem = Chunk | PromptProgress


class Engine:
    """One loaded model. Subclasses implement what they can; the rest says that it cannot.

    An engine knows nothing of clients, events or clusters. All methods but the constructor
    are coroutines; cancelling one, or closing a stream, ends the work behind it.
    """

    name = "engine"
    """The ``backend`` that ``meta`` reports."""

    concurrency = 1_000_000
    """Calls that one engine takes at once unless the user says otherwise."""

    accepts: frozenset[str] | None = None
    """Generation settings the engine understands; others are refused. ``None`` = all."""

    async def load(self) -> None:
        """Bring the model up, and raise the real cause if it cannot answer."""

    async def meta(self) -> dict[str, Any]:
        """What the model is and can do: the dictionary of ``ByzerLLM.get_meta``."""
        return {"backend": self.name, "model_deploy_type": "proprietary", "support_stream": True}

    def stream(self, request: Generate, sampling: Sampling) -> AsyncIterator[StreamItem]:
        """Yield the reply piece by piece."""
        raise Unsupported(f"{self.name} cannot generate text")

    async def generate(self, request: Generate, sampling: Sampling) -> Reply:
        """The whole reply: the sum of the stream unless the engine knows a shorter way."""
        pieces = Pieces()
        started = time.perf_counter()
        first: float | None = None
        stream = self.stream(request, sampling)
        try:
            async for item in stream:
                if isinstance(item, Chunk):
                    if first is None and item.text:
                        first = time.perf_counter() - started
                    pieces.add(item)
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        reply = pieces.reply()
        reply.first_token_seconds = first
        return reply

    async def embed(self, texts: list[str], params: Mapping[str, Any]) -> Reply:
        """``Reply.value``: one list of floats per text, in order."""
        raise Unsupported(f"{self.name} gives no embeddings")

    async def rerank(self, pairs: list[tuple[str, str]], params: Mapping[str, Any]) -> Reply:
        """``Reply.value``: one score per pair, in order; higher is better."""
        raise Unsupported(f"{self.name} cannot rerank")

    async def tokenize(self, text: str) -> list[int]:
        raise Unsupported(
            f"{self.name} cannot count tokens; where a length limit asks for it, pass "
            "force_skip_context_length_check=True to ByzerLLM"
        )

    async def detokenize(self, ids: list[int]) -> str:
        raise Unsupported(f"{self.name} cannot detokenize")

    async def render_chat(self, messages: list[Message]) -> str:
        raise Unsupported(f"{self.name} has no chat template")

    async def abort(self, request_id: str) -> None:
        """Told when a running generation is cancelled by id; most engines need nothing here."""

    async def close(self) -> None:
        """Free everything. Safe to call twice."""


class Pieces:
    """Adds up the chunks of a stream into replies, one for each choice."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {0: []}
        self._replies: dict[int, Reply] = {0: Reply()}

    def add(self, chunk: Chunk) -> None:
        index = chunk.index
        if index not in self._replies:
            self._texts[index], self._replies[index] = [], Reply()
        reply = self._replies[index]
        if chunk.text:
            self._texts[index].append(chunk.text)
        if chunk.reasoning:
            reply.reasoning += chunk.reasoning
        if chunk.finish_reason:
            reply.finish_reason = chunk.finish_reason
        if chunk.logprobs is not None:
            reply.logprobs = [*(reply.logprobs or []), chunk.logprobs]
        if chunk.request_id:
            reply.request_id = chunk.request_id
        if chunk.by != "model":
            reply.by = chunk.by
        if chunk.usage is not None:
            self._replies[0].usage = chunk.usage

    @property
    def text(self) -> str:
        """The first choice so far."""
        return "".join(self._texts[0])

    def reply(self) -> Reply:
        for index, reply in self._replies.items():
            reply.value = "".join(self._texts[index])
        first = self._replies[0]
        first.others = [self._replies[index] for index in sorted(self._replies) if index]
        return first
