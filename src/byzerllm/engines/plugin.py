"""Models in the shape of earlier releases, as engines: ``CustomSaasAPI`` and ``init_model``.

Such an object has some of ``get_meta``, ``stream_chat``, ``embed_query`` and ``embed_rerank``,
each plain or as ``async_…``.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from byzerllm import portal
from byzerllm.errors import ByzerError, ProviderError, Unsupported
from byzerllm.types.engine import Engine, StreamItem
from byzerllm.types.records import Chunk, Generate, Reply, Usage
from byzerllm.types.sampling import Sampling

T = TypeVar("T")

_DEFAULTS = {"max_tokens": 1024, "top_p": 0.7, "temperature": 0.9}

# What reading an answer of another shape than the agreed one ends in.
_MISSHAPEN = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class Plugin(Engine):
    """Wraps one plug-in object.

    Plain methods run on threads, async ones on the background loop: all of a plug-in's calls
    meet the same loop, whichever loops its callers are on.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, *, saas: bool) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.concurrency = 1000 if saas else 1
        self._saas = saas
        self._left: list[threading.Event] = []
        """Plain calls that still run though nobody waits for them: set when they end."""

    async def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call ``async_<method>`` or ``<method>``, whichever there is and however it is made.

        Raises:
            ProviderError: it failed; with the status that the error of a vendor's SDK carries.
        """
        function = getattr(self.model, f"async_{method}", None) or getattr(self.model, method, None)
        if function is None:
            raise Unsupported(f"The model {self.name} has no {method}")
        try:
            if inspect.iscoroutinefunction(function):
                return await portal.over(function(*args, **kwargs))
            answer = await self._in_thread(lambda: function(*args, **kwargs))
            return await portal.over(_awaited(answer)) if inspect.isawaitable(answer) else answer
        except ByzerError:
            raise
        except Exception as error:
            status = getattr(error, "status_code", 0)
            raise ProviderError(
                f"The model {self.name} failed in {method}: {type(error).__name__}: {error}",
                status=status if isinstance(status, int) else 0,
            ) from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._saas:
            return await portal.in_thread(work)
        # A thread cannot be cancelled, and a local model takes one call at a time: the next
        # one waits for what a cancelled one left running.
        for left in self._left[:]:
            await portal.in_thread(left.wait)
        self._left = [left for left in self._left if not left.is_set()]
        ended = threading.Event()

        def run() -> T:
            try:
                return work()
            finally:
                ended.set()

        try:
            return await portal.in_thread(run)
        except asyncio.CancelledError:
            self._left.append(ended)
            raise

    def _has(self, method: str) -> bool:
        return hasattr(self.model, method) or hasattr(self.model, f"async_{method}")

    async def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = {
            "model_deploy_type": "saas" if self._saas else "proprietary",
            "backend": "saas" if self._saas else self.name,
            "support_stream": False,
        }
        if self._has("get_meta"):
            said = await self._ask("get_meta")
            if isinstance(said, list) and said and isinstance(said[0], dict):
                meta.update(said[0])
            elif isinstance(said, dict):
                meta.update(said)
        return meta

    async def generate(self, request: Generate, sampling: Sampling) -> Reply:
        settings = {**_DEFAULTS, **sampling.values}
        if sampling.request_id:
            settings["request_id"] = sampling.request_id
        if sampling.response_prefix:
            settings["response_prefix"] = sampling.response_prefix
        if request.messages is None:
            instruction, history = request.prompt, []
        else:
            instruction, history = request.messages[-1].get("content"), request.messages[:-1]
        rows = await self._ask(
            "stream_chat",
            self.tokenizer,
            instruction,
            history,
            settings.pop("max_tokens"),
            settings.pop("top_p"),
            settings.pop("temperature"),
            **settings,
        )
        try:
            return _read_reply(rows)
        except _MISSHAPEN as error:
            raise self._misshapen(rows, "a list of (text, dictionary)") from error

    async def stream(self, request: Generate, sampling: Sampling) -> AsyncIterator[StreamItem]:
        # A plug-in of this shape streams through an actor of a cluster; here its whole reply
        # is one piece.
        reply = await self.generate(request, sampling)
        yield Chunk(
            text=reply.value,
            reasoning=reply.reasoning,
            finish_reason=reply.finish_reason or "stop",
            usage=reply.usage,
            request_id=reply.request_id,
        )

    async def embed(self, texts: list[str], params: Mapping[str, Any]) -> Reply:
        vectors, usage = [], Usage()
        for text in texts:
            answer = await self._ask("embed_query", text, extract_params=dict(params))
            try:
                if isinstance(answer, tuple):
                    answer, said = answer
                    count = (said.get("metadata") or {}).get("input_tokens_count") or 0
                    usage.input_tokens = (usage.input_tokens or 0) + int(count)
                vectors.append([float(number) for number in answer])
            except _MISSHAPEN as error:
                raise self._misshapen(answer, "a list of numbers") from error
        return Reply(vectors, usage=usage)

    async def rerank(self, pairs: list[tuple[str, str]], params: Mapping[str, Any]) -> Reply:
        answer = await self._ask("embed_rerank", list(pairs), extract_params=dict(params))
        rows = answer[0] if isinstance(answer, tuple) else answer
        try:
            scored = [((str(pair[0]), str(pair[1])), float(score)) for pair, score in rows]
        except _MISSHAPEN as error:
            raise self._misshapen(answer, "a list of (pair, score)") from error
        # Plug-ins sort as they like: the scores go back to the places of their pairs.
        places: dict[tuple[str, str], list[int]] = {}
        for place, pair in enumerate(pairs):
            places.setdefault((pair[0], pair[1]), []).append(place)
        scores = [0.0] * len(pairs)
        for pair, score in scored:
            waiting = places.get(pair)
            if not waiting:
                raise ProviderError(f"The model {self.name} scored a pair it was not given")
            scores[waiting.pop(0)] = score
        if any(places.values()):
            raise ProviderError(f"The model {self.name} scored {len(scored)} of {len(pairs)} pairs")
        return Reply(scores)

    def _misshapen(self, answer: Any, due: str) -> ProviderError:
        return ProviderError(f"The model {self.name} answered {str(answer)[:200]!r}; {due} was due")

    async def abort(self, request_id: str) -> None:
        if self._has("abort"):
            await self._ask("abort", request_id)

    async def close(self) -> None:
        if self._has("close"):
            await self._ask("close")


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def _read_reply(rows: Any) -> Reply:
    """The last ``(text, {"metadata": …})`` of a plug-in's answer."""
    text, said = rows[-1]
    metadata = dict(said.get("metadata") or {})
    usage = Usage(
        metadata.pop("input_tokens_count", None), metadata.pop("generated_tokens_count", None)
    )
    return Reply(
        value=text,
        usage=usage,
        reasoning=metadata.pop("reasoning_content", "") or "",
        finish_reason=metadata.pop("finish_reason", "") or "",
        request_id=str(metadata.pop("request_id", "") or ""),
        extra=metadata,
    )
