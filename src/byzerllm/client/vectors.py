"""Asking for vectors and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from byzerllm.client.deploying import Deploying
from byzerllm.client.effects import Steps, adrive, drive
from byzerllm.client.pipeline import run
from byzerllm.client.wire import read_pairs, to_item
from byzerllm.errors import ConfigError
from byzerllm.types.data import LLMRequest, LLMResponse
from byzerllm.types.records import Embed, Rerank

Settings = Mapping[str, Any] | None


class Vectors(Deploying):
    """The part of the client that embeds and reranks."""

    def emb_query(self, v: str, model: str | None = None) -> list[LLMResponse]:
        """The vector of one text."""
        return drive(self._emb("emb_query", model, LLMRequest(instruction=v), None))

    async def async_emb_query(self, v: str, model: str | None = None) -> list[LLMResponse]:
        """``emb_query`` for async callers."""
        steps = self._emb("emb_query", model, LLMRequest(instruction=v), None, is_async=True)
        return await adrive(steps)

    def emb(
        self,
        model: str | None,
        request: LLMRequest | str | Sequence[str],
        extract_params: Settings = None,
    ) -> list[LLMResponse]:
        """The vectors of texts: one response per text, in order, ``output`` a list of floats."""
        return drive(self._emb("emb", model, request, extract_params))

    async def async_emb(
        self,
        model: str | None,
        request: LLMRequest | str | Sequence[str],
        extract_params: Settings = None,
    ) -> list[LLMResponse]:
        """``emb`` for async callers."""
        return await adrive(self._emb("emb", model, request, extract_params, is_async=True))

    def _emb(
        self,
        method: str,
        model: str | None,
        request: LLMRequest | str | Sequence[str],
        extract_params: Settings,
        *,
        is_async: bool = False,
    ) -> Steps[list[LLMResponse]]:
        name = model or self.default_emb_model_name
        if not name:
            raise ConfigError(
                "No embedding model is named; pass model=… or call setup_default_emb_model_name"
            )
        given = request.instruction if isinstance(request, LLMRequest) else request
        texts = [given] if isinstance(given, str) else list(given)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ConfigError("emb takes a text or a list of texts, with at least one")
        params = dict(extract_params or {})
        call = self._call(method, name, [Embed(name, texts, params)], is_async=is_async)
        (reply,) = yield from run(call)
        vectors = reply.value
        if not isinstance(vectors, list) or len(vectors) != len(texts):
            raise ConfigError(f"A hook answered emb with something else than {len(texts)} vectors")
        metadata = reply.metadata()
        return [
            LLMResponse(vector, to_item(Embed(name, [text], params)), dict(metadata))
            for text, vector in zip(texts, vectors, strict=True)
        ]

    def emb_rerank(
        self,
        model: str | None = None,
        sentence_pairs: Any = None,
        extract_params: Settings = None,
    ) -> list[LLMResponse]:
        """Score ``(query, passage)`` pairs; ``[0].output`` is ``[[pair, score], …]``, best first.

        ``[0].metadata["indices"]`` gives their places in the input.
        """
        return drive(self._emb_rerank(model, sentence_pairs, extract_params))

    async def async_emb_rerank(
        self,
        model: str | None = None,
        sentence_pairs: Any = None,
        extract_params: Settings = None,
    ) -> list[LLMResponse]:
        """``emb_rerank`` for async callers."""
        return await adrive(self._emb_rerank(model, sentence_pairs, extract_params, is_async=True))

    def _emb_rerank(
        self, model: str | None, pairs: Any, extract_params: Settings, *, is_async: bool = False
    ) -> Steps[list[LLMResponse]]:
        name = model or self.default_rerank_model_name
        if not name:
            raise ConfigError(
                "No rerank model is named; pass model=… or call setup_default_re_rank_model_name"
            )
        request = Rerank(name, read_pairs(pairs), dict(extract_params or {}))
        call = self._call("emb_rerank", name, [request], is_async=is_async)
        (reply,) = yield from run(call)
        sent, scores = call.requests[0], reply.value
        assert isinstance(sent, Rerank)  # a handler may have changed it, not its kind
        if not isinstance(scores, list) or len(scores) != len(sent.pairs):
            raise ConfigError(f"A hook answered emb_rerank with {scores!r}; scores were due")
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        output = [[sent.pairs[place], scores[place]] for place in order]
        metadata = {**reply.metadata(), "indices": order}
        return [LLMResponse(output, to_item(sent), metadata)]
