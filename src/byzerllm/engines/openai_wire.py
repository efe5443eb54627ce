"""The OpenAI wire format: what hosted models and llama.cpp's server all speak.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from byzerllm.engines.http import Http
from byzerllm.errors import ConfigError, ProviderError, StreamError, Unsupported
from byzerllm.types.engine import Engine, StreamItem
from byzerllm.types.records import Chunk, Generate, PromptProgress, Reply, Usage
from byzerllm.types.sampling import Sampling, bare, callback_only


class OpenAIWire(Engine):
    """Calls one model over HTTP. Subclasses say only what differs."""

    name = "openai"
    model = ""
    max_tokens_field = "max_tokens"
    assistant_prefix = False
    """True if a trailing assistant message is continued by the model."""
    stream_usage = True
    """Ask for token counts at the end of streams."""

    chat_path = "/chat/completions"
    completions_path = "/completions"
    embeddings_path = "/embeddings"
    rerank_path = "/rerank"

    http: Http

    # -- requests ---------------------------------------------------------------------------

    def body(self, request: Generate, sampling: Sampling, *, stream: bool) -> dict[str, Any]:
        """The JSON body of a generation."""
        body: dict[str, Any] = {"model": self.model, **sampling.values}
        if "max_tokens" in body:
            body[self.max_tokens_field] = body.pop("max_tokens")
        if request.messages is None:
            body["prompt"] = request.prompt
        else:
            body["messages"] = request.messages
        if sampling.response_prefix:
            self._begin_with(body, sampling.response_prefix)
        if stream:
            body["stream"] = True
            if self.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return body

    def _begin_with(self, body: dict[str, Any], prefix: str) -> None:
        if isinstance(body.get("prompt"), str):
            body["prompt"] += prefix
        elif self.assistant_prefix and "messages" in body:
            body["messages"] = [*body["messages"], {"role": "assistant", "content": prefix}]
        else:
            raise Unsupported(f"{self.name} cannot be made to begin with a given text")

    def path(self, request: Generate) -> str:
        return self.completions_path if request.messages is None else self.chat_path

    # -- generations ------------------------------------------------------------------------

    async def generate(self, request: Generate, sampling: Sampling) -> Reply:
        body = encode(self.body(request, sampling, stream=False))
        answer = decode(await self.http.post(self.path(request), body), self.name)
        reply = self.read_reply(answer)
        reply.value = sampling.response_prefix + reply.value
        return reply

    def read_reply(self, body: dict[str, Any]) -> Reply:
        """The reply in a whole answer."""
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices:
            raise ProviderError(f"{self.name} answered without choices: {str(body)[:300]}")
        replies = [self.read_choice(choice) for choice in choices]
        first = replies[0]
        first.others = replies[1:]
        first.usage = read_usage(body.get("usage")) or Usage()
        first.request_id = str(body.get("id") or "")
        return first

    def read_choice(self, choice: dict[str, Any]) -> Reply:
        message = choice.get("message") or {}
        return Reply(
            value=message.get("content") or choice.get("text") or "",
            reasoning=message.get("reasoning_content") or message.get("reasoning") or "",
            finish_reason=choice.get("finish_reason") or "",
            logprobs=choice.get("logprobs"),
        )

    async def stream(self, request: Generate, sampling: Sampling) -> AsyncIterator[StreamItem]:
        body = encode(self.body(request, sampling, stream=True))
        finished = False
        prefix = sampling.response_prefix
        source = self.http.events(self.path(request), body)
        try:
            async for data in source:
                if data == b"[DONE]":
                    finished = True
                    break
                for item in self.read_event(decode(data, self.name)):
                    if isinstance(item, Chunk):
                        finished = finished or bool(item.finish_reason)
                        if prefix and (item.text or item.finish_reason):
                            item.text, prefix = prefix + item.text, ""
                    yield item
        finally:
            await source.aclose()  # type: ignore[attr-defined]
        if not finished:
            raise StreamError(f"{self.name} broke off in the middle of its answer")

    def read_event(self, event: dict[str, Any]) -> list[StreamItem]:
        """What one streamed event says: any number of pieces, usually one."""
        problem = event.get("error")
        if problem:
            text = problem.get("message") if isinstance(problem, dict) else problem
            raise ProviderError(f"{self.name} failed in the middle of its answer: {text}")
        items: list[StreamItem] = []
        progress = event.get("prompt_progress")
        if progress:
            items.append(PromptProgress(progress["processed"], progress["total"]))
        usage = read_usage(event.get("usage"))
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            text = delta.get("content") or choice.get("text") or ""
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            reason = choice.get("finish_reason") or ""
            if text or reasoning or reason:
                items.append(
                    Chunk(
                        text=text,
                        reasoning=reasoning,
                        finish_reason=reason,
                        index=choice.get("index") or 0,
                        logprobs=choice.get("logprobs"),
                        request_id=event.get("id") or "",
                    )
                )
        if usage is not None:
            items.append(Chunk(usage=usage))
        return items

    # -- vectors and scores -----------------------------------------------------------------

    async def embed(self, texts: list[str], params: Mapping[str, Any]) -> Reply:
        body = encode({"model": self.model, "input": texts, **plain(params)})
        answer = decode(await self.http.post(self.embeddings_path, body), self.name)
        rows = answer.get("data")
        if not isinstance(rows, list) or len(rows) != len(texts):
            raise ProviderError(
                f"{self.name} gave {len(rows) if isinstance(rows, list) else 'no'} vectors "
                f"for {len(texts)} texts"
            )
        vectors: list[Any] = [None] * len(texts)
        for position, row in enumerate(rows):
            vectors[row.get("index", position)] = row["embedding"]
        return Reply(vectors, usage=read_usage(answer.get("usage")) or Usage())

    async def rerank(self, pairs: list[tuple[str, str]], params: Mapping[str, Any]) -> Reply:
        scores: list[float] = [0.0] * len(pairs)
        for query in dict.fromkeys(query for query, _ in pairs):
            places = [place for place, pair in enumerate(pairs) if pair[0] == query]
            body = {
                "model": self.model,
                "query": query,
                "documents": [pairs[place][1] for place in places],
                **plain(params),
            }
            answer = decode(await self.http.post(self.rerank_path, encode(body)), self.name)
            results = answer.get("results") or answer.get("data") or []
            if len(results) != len(places):
                raise ProviderError(f"{self.name} scored {len(results)} of {len(places)} passages")
            for result in results:
                scores[places[result["index"]]] = float(result["relevance_score"])
        return Reply(scores)

    async def close(self) -> None:
        await self.http.close()


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without their prefixes, and without those meant for callbacks."""
    return {
        bare(key): value
        for key, value in params.items()
        if not callback_only(key) and bare(key) not in ("request_id", "timeout_s")
    }


def read_usage(usage: Any) -> Usage | None:
    """Token counts as OpenAI writes them."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        usage.get("prompt_tokens"), usage.get("completion_tokens"), details.get("cached_tokens")
    )


def encode(body: Any) -> bytes:
    """To JSON.

    Raises:
        ConfigError: something in it cannot be written as JSON.
    """
    import msgspec

    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"The request cannot be written as JSON: {error}") from error


def decode(data: bytes, name: str) -> dict[str, Any]:
    """From JSON; an answer that is none is the provider's error."""
    import msgspec

    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        shown = " ".join(data[:200].decode(errors="replace").split())
        raise ProviderError(
            f"{name} answered something that is not JSON: {shown!r}. Check the base_url"
        ) from error
    if not isinstance(body, dict):
        raise ProviderError(f"{name} answered JSON that is not an object: {str(body)[:200]}")
    return body
