"""The OpenAI wire format: what hosted models and llama.cpp's server all speak.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from byzerllm.engines.http import Http, error_of
from byzerllm.errors import ConfigError, ProviderError, StreamError, Unsupported
from byzerllm.types.engine import Engine, StreamItem
from byzerllm.types.records import Chunk, Generate, PromptProgress, Reply, Usage
from byzerllm.types.sampling import Sampling, bare, callback_only

DONE = b"[DONE]"
"""The last event of a stream."""

# What reading an answer of another shape than the documented one ends in.
_MISSHAPEN = (AttributeError, IndexError, KeyError, TypeError, ValueError)


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

    async def _ask_for(self, path: str, body: Any) -> dict[str, Any]:
        """Post a body; the decoded answer, which may still be of any shape."""
        answer = decode(await self.http.post(path, encode(body)), self.name, self.http.clean)
        if answer.get("error"):  # with a status of 200
            raise self._problem(answer, "answered")
        return answer

    # -- generations ------------------------------------------------------------------------

    async def generate(self, request: Generate, sampling: Sampling) -> Reply:
        body = self.body(request, sampling, stream=False)
        answer = await self._ask_for(self.path(request), body)
        try:
            reply = self.read_reply(answer)
        except _MISSHAPEN as error:
            raise self._misshapen(answer) from error
        if sampling.response_prefix:
            for choice in (reply, *reply.others):
                choice.value = sampling.response_prefix + choice.value
        return reply

    def read_reply(self, body: dict[str, Any]) -> Reply:
        """The reply in a whole answer."""
        choices = body["choices"]
        replies = [self.read_choice(choice) for choice in choices]
        if len(choices) > 1 and all("index" in choice for choice in choices):
            places = [choice["index"] for choice in choices]
            replies = [
                replies[place] for place in sorted(range(len(places)), key=places.__getitem__)
            ]
        first = replies[0]
        first.others = replies[1:]
        first.usage = read_usage(body.get("usage")) or Usage()
        first.request_id = str(body.get("id") or "")
        return first

    def read_choice(self, choice: dict[str, Any]) -> Reply:
        message = choice["message"] if "message" in choice else {"content": choice["text"]}
        return Reply(
            value=text_of(message.get("content")),
            reasoning=text_of(message.get("reasoning_content") or message.get("reasoning")),
            finish_reason=choice.get("finish_reason") or "",
            logprobs=choice.get("logprobs"),
        )

    async def stream(self, request: Generate, sampling: Sampling) -> AsyncIterator[StreamItem]:
        body = encode(self.body(request, sampling, stream=True))
        finished = False
        prefix = sampling.response_prefix
        begun: set[int] = set()
        source = self.http.events(self.path(request), body, last=DONE)
        try:
            async for data in source:
                if data == DONE:
                    finished = True
                    continue
                event = decode(data, self.name, self.http.clean)
                try:
                    items = self.read_event(event)
                except _MISSHAPEN as error:
                    raise self._misshapen(event) from error
                for item in items:
                    if isinstance(item, Chunk):
                        finished = finished or bool(item.finish_reason)
                        if prefix and item.index not in begun and (item.text or item.finish_reason):
                            begun.add(item.index)
                            item.text = prefix + item.text
                    yield item
        finally:
            await source.aclose()  # type: ignore[attr-defined]
        if not finished:
            raise StreamError(f"{self.name} broke off in the middle of its answer")

    def read_event(self, event: dict[str, Any]) -> list[StreamItem]:
        """What one streamed event says: any number of pieces, usually one."""
        if event.get("error"):
            raise self._problem(event, "failed in the middle of its answer")
        items: list[StreamItem] = []
        progress = event.get("prompt_progress")
        if progress:
            items.append(PromptProgress(progress["processed"], progress["total"]))
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or choice
            text = delta.get("content") or delta.get("text") or ""
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            reason = choice.get("finish_reason") or ""
            if text or reasoning or reason:
                items.append(
                    Chunk(
                        text=text if type(text) is str else text_of(text),
                        reasoning=reasoning if type(reasoning) is str else text_of(reasoning),
                        finish_reason=reason,
                        index=choice.get("index") or 0,
                        logprobs=choice.get("logprobs"),
                        request_id=event.get("id") or "",
                    )
                )
        usage = read_usage(event.get("usage"))
        if usage is not None:
            last = items[-1] if items else None
            if isinstance(last, Chunk):
                last.usage = usage
            else:
                items.append(Chunk(usage=usage))
        return items

    # -- vectors and scores -----------------------------------------------------------------

    async def embed(self, texts: list[str], params: Mapping[str, Any]) -> Reply:
        body = {"model": self.model, "input": texts, **plain(params)}
        answer = await self._ask_for(self.embeddings_path, body)
        try:
            rows = _in_order(answer["data"])
            vectors = [read_vector(row["embedding"]) for row in rows]
        except _MISSHAPEN as error:
            raise self._misshapen(answer) from error
        if len(vectors) != len(texts):
            raise ProviderError(f"{self.name} gave {len(vectors)} vectors for {len(texts)} texts")
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
            answer = await self._ask_for(self.rerank_path, body)
            try:
                rows = _in_order(answer.get("results") or answer["data"])
                found = [read_score(row) for row in rows]
            except _MISSHAPEN as error:
                raise self._misshapen(answer) from error
            if len(found) != len(places):
                raise ProviderError(f"{self.name} scored {len(found)} of {len(places)} passages")
            for place, score in zip(places, found, strict=True):
                scores[place] = score
        return Reply(scores)

    # -- errors -----------------------------------------------------------------------------

    def _problem(self, body: dict[str, Any], what: str) -> ProviderError:
        """The error that an answer carries in its body."""
        code, message = error_of(body)
        status = int(code) if code.isdecimal() and 400 <= int(code) <= 599 else 0
        return ProviderError(
            self.http.clean(f"{self.name} {what}: {message or body['error']}"),
            status=status,
            code=self.http.clean(code),
        )

    def _misshapen(self, body: dict[str, Any]) -> ProviderError:
        return ProviderError(
            self.http.clean(
                f"{self.name} answered in another shape than OpenAI's: {str(body)[:300]}. "
                "Check saas.base_url"
            )
        )

    async def close(self) -> None:
        await self.http.close()


def text_of(content: Any) -> str:
    """The text of a message: itself, or the text of its parts.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(content, str):
        return content
    if not content:
        return ""
    # Mistral's reasoning models answer in parts, their thoughts in parts of another type.
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")


def read_vector(vector: Any) -> list[float]:
    """One embedding: a list of numbers, or base64 of little-endian floats.

    Raises:
        ValueError: it is neither.
    """
    import msgspec

    if isinstance(vector, str):
        import base64
        import struct

        data = base64.b64decode(vector, validate=True)
        if not data or len(data) % 4:
            raise ValueError("not the bytes of floats")
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    try:
        numbers: list[float] = msgspec.convert(vector, list[float])
    except msgspec.ValidationError as error:
        raise ValueError("a vector is a list of numbers") from error
    if not numbers:
        raise ValueError("an empty vector")
    return numbers


def read_score(row: Mapping[str, Any]) -> float:
    """How well one passage fits."""
    return float(row["relevance_score"] if "relevance_score" in row else row["score"])


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by their ``index``, where they have one.

    Raises:
        ValueError: two with the same index, or a gap.
    """
    placed = {row.get("index", place): row for place, row in enumerate(rows)}
    if sorted(placed) != list(range(len(rows))):
        raise ValueError("the places do not fit")
    return [placed[place] for place in range(len(rows))]


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without their prefixes, and without those meant for callbacks."""
    return {
        bare(key): value
        for key, value in params.items()
        if not callback_only(key) and bare(key) not in ("request_id", "timeout_s")
    }


def read_usage(usage: Any) -> Usage | None:
    """Token counts as OpenAI writes them; what is no count is left out."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(details.get("cached_tokens")) if isinstance(details, dict) else None,
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


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


def decode(data: bytes, name: str, clean: Callable[[str], str] = str) -> dict[str, Any]:
    """From JSON; an answer that is none is the provider's error."""
    body = decode_any(data, name, clean)
    if not isinstance(body, dict):
        raise ProviderError(clean(f"{name} answered JSON that is not an object: {str(body)[:200]}"))
    return body


def decode_any(data: bytes, name: str, clean: Callable[[str], str] = str) -> Any:
    """From JSON of any kind.

    Raises:
        ProviderError: it is none.
    """
    import msgspec

    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        shown = " ".join(data[:200].decode(errors="replace").split())
        raise ProviderError(
            clean(f"{name} answered something that is not JSON: {shown!r}. Check the base_url")
        ) from error
