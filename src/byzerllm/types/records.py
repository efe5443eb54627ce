"""What travels between a client and an engine: requests going out, replies coming back.

A request is one of ``Generate | Embed | Rerank | Tokenize | RenderChat | Meta``. Records are
frozen: to change one, ``dataclasses.replace`` it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""One message in OpenAI's shape: ``role``, ``content`` (text or parts), and what a role adds."""


@dataclass(frozen=True)
class Generate:
    """Ask for text: either ``messages`` in OpenAI's shape, or one finished ``prompt``.

    ``params`` are the generation settings as the caller wrote them (``temperature``,
    ``gen.stop``, ``max_length`` …); ``byzerllm.types.sampling`` reads them.
    """

    model: str
    messages: list[Message] | None = None
    prompt: str | list[int] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return "completion" if self.messages is None else "chat"

    @property
    def text(self) -> str:
        """Everything the model will read, as one text (for people, logs and tests)."""
        if self.messages is None:
            return self.prompt if isinstance(self.prompt, str) else str(self.prompt)
        return "\n".join(_plain(message.get("content")) for message in self.messages)


def _plain(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or f"<{part.get('type')}>") for part in content)
    return "" if content is None else str(content)


@dataclass(frozen=True)
class Embed:
    """Turn texts into vectors."""

    model: str
    texts: list[str]
    params: Mapping[str, Any] = field(default_factory=dict)
    kind = "embed"

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


@dataclass(frozen=True)
class Rerank:
    """Score how well each passage answers its query."""

    model: str
    pairs: list[tuple[str, str]]
    params: Mapping[str, Any] = field(default_factory=dict)
    kind = "rerank"

    @property
    def text(self) -> str:
        return "\n".join(f"{query}\n{passage}" for query, passage in self.pairs)


@dataclass(frozen=True)
class Tokenize:
    """Split a text into the model's token ids."""

    model: str
    text: str
    params: Mapping[str, Any] = field(default_factory=dict)
    kind = "tokenize"


@dataclass(frozen=True)
class RenderChat:
    """Render messages with the model's own chat template."""

    model: str
    messages: list[Message]
    params: Mapping[str, Any] = field(default_factory=dict)
    kind = "render_chat"

    @property
    def text(self) -> str:
        return "\n".join(_plain(message.get("content")) for message in self.messages)


@dataclass(frozen=True)
class Meta:
    """Ask what the model is and can do."""

    model: str
    params: Mapping[str, Any] = field(default_factory=dict)
    kind = "meta"
    text = ""


Request = Generate | Embed | Rerank | Tokenize | RenderChat | Meta

GENERATION_KINDS = frozenset({"chat", "completion"})
ALL_KINDS = GENERATION_KINDS | {"embed", "rerank", "tokenize", "render_chat", "meta"}


@dataclass
class Usage:
    """Token counts; ``None`` where the engine does not know."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass
class Chunk:
    """One piece of a streamed reply: only what is new."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    usage: Usage | None = None
    index: int = 0
    logprobs: Any = None
    request_id: str = ""
    by: str = "model"


@dataclass
class PromptProgress:
    """How much of the prompt an engine has read, in tokens."""

    done: int
    total: int


def _speed(tokens: int | None, seconds: float | None, first: float | None) -> float | None:
    """Tokens/s of writing; the time to the first token is reading and does not count."""
    if not tokens or not seconds:
        return None
    if first is not None and tokens > 1 and seconds > first:
        return (tokens - 1) / (seconds - first)
    return tokens / seconds


@dataclass
class Reply:
    """The whole answer to one request.

    ``value`` is the text of a generation, the vectors of an embedding (one list of floats per
    text), the scores of a rerank (one float per pair), the ids of a tokenisation, the text of
    a rendered chat, or the dictionary of a meta request. ``by`` names who answered: ``model``,
    ``human``, ``hook`` … Times are in seconds.
    """

    value: Any = ""
    reasoning: str = ""
    finish_reason: str = ""
    usage: Usage = field(default_factory=Usage)
    by: str = "model"
    request_id: str = ""
    seconds: float | None = None
    first_token_seconds: float | None = None
    others: list[Reply] = field(default_factory=list)
    """The further choices where ``n`` > 1 was asked for."""
    logprobs: Any = None
    extra: dict[str, Any] = field(default_factory=dict)
    """More metadata for the caller, by name."""
    row: dict[str, Any] | None = None
    """The ``{"predict", "input", "metadata"}`` that a callback of the old form gave or saw."""

    @property
    def text(self) -> str:
        return self.value if isinstance(self.value, str) else str(self.value)

    def metadata(self) -> dict[str, Any]:
        """The metadata dictionary of ``LLMResponse``: known values only, times in seconds."""
        usage = self.usage
        output, seconds = usage.output_tokens, self.seconds
        known = {
            "request_id": self.request_id or None,
            "input_tokens_count": usage.input_tokens,
            "generated_tokens_count": output,
            "time_cost": seconds,
            "first_token_time": self.first_token_seconds,
            "speed": _speed(output, seconds, self.first_token_seconds),
            "finish_reason": self.finish_reason or None,
            "reasoning_content": self.reasoning or None,
            "logprobs": self.logprobs,
            "by": None if self.by == "model" else self.by,
        }
        found = {key: value for key, value in known.items() if value is not None}
        if self.others:
            found["choices"] = [
                {"output": reply.value, "finish_reason": reply.finish_reason}
                for reply in [self, *self.others]
            ]
        return {**found, **self.extra}
