"""Models in the shape of earlier releases, as engines: ``CustomSaasAPI`` and ``init_model``.

Such an object has some of ``get_meta``, ``stream_chat``, ``embed_query`` and ``embed_rerank``,
each plain or as ``async_…``.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping
from typing import Any

from byzerllm import portal
from byzerllm.errors import ProviderError, Unsupported
from byzerllm.types.engine import Engine, StreamItem
from byzerllm.types.records import Chunk, Generate, Reply, Usage
from byzerllm.types.sampling import Sampling

_DEFAULTS = {"max_tokens": 1024, "top_p": 0.7, "temperature": 0.9}


class Plugin(Engine):
    """Wraps one plug-in object."""

    def __init__(self, model: Any, tokenizer: Any, name: str, *, saas: bool) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.concurrency = 1000 if saas else 1
        self._saas = saas

    async def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call ``async_<method>`` or ``<method>``, whichever there is and however it is made."""
        function = getattr(self.model, f"async_{method}", None) or getattr(self.model, method, None)
        if function is None:
            raise Unsupported(f"The model {self.name} has no {method}")
        if inspect.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        answer = await portal.in_thread(lambda: function(*args, **kwargs))
        return await answer if inspect.isawaitable(answer) else answer

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
        return _reply(rows, self.name)

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
            if isinstance(answer, tuple):
                answer, said = answer
                usage.input_tokens = (usage.input_tokens or 0) + int(
                    (said.get("metadata") or {}).get("input_tokens_count") or 0
                )
            vectors.append([float(number) for number in answer])
        return Reply(vectors, usage=usage)

    async def rerank(self, pairs: list[tuple[str, str]], params: Mapping[str, Any]) -> Reply:
        answer = await self._ask("embed_rerank", list(pairs), extract_params=dict(params))
        rows = answer[0] if isinstance(answer, tuple) else answer
        # Plug-ins sort as they like: the scores go back to the places of their pairs.
        places: dict[tuple[str, str], list[int]] = {}
        for place, pair in enumerate(pairs):
            places.setdefault((pair[0], pair[1]), []).append(place)
        scores = [0.0] * len(pairs)
        for pair, score in rows:
            waiting = places.get((pair[0], pair[1]))
            if not waiting:
                raise ProviderError(f"The model {self.name} scored a pair it was not given")
            scores[waiting.pop(0)] = float(score)
        if any(places.values()):
            raise ProviderError(f"The model {self.name} scored {len(rows)} of {len(pairs)} pairs")
        return Reply(scores)

    async def abort(self, request_id: str) -> None:
        if self._has("abort"):
            await self._ask("abort", request_id)

    async def close(self) -> None:
        if self._has("close"):
            await self._ask("close")


def _reply(rows: Any, name: str) -> Reply:
    """The last ``(text, {"metadata": …})`` of a plug-in's answer."""
    try:
        text, said = rows[-1]
        metadata = dict(said.get("metadata") or {})
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise ProviderError(
            f"The model {name} answered {str(rows)[:200]!r}; a list of (text, dictionary) was due"
        ) from error
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
