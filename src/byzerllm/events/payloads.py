"""What handlers are told. Every payload says when it fires and what may be answered.

The call family fires once for each call of the user; the model family once for each attempt
to ask a model (a list of instructions asks it several times).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from byzerllm.types.records import Chunk, Reply, Request


@dataclass(frozen=True)
class CallContext:
    """What is known of the call an event belongs to. ``state`` is shared by its handlers."""

    call_id: str
    method: str
    """The public method that was called, without ``async_``: ``chat_oai``, ``emb`` …"""
    kind: str
    """``chat | completion | embed | rerank | tokenize | render_chat | meta``"""
    model: str
    stream: bool = False
    is_async: bool = False
    attempt: int = 1
    state: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Event:
    """The root of all payloads."""

    ctx: CallContext


@dataclass(frozen=True)
class BeforeCall(Event):
    """The call is complete and within its limits; nothing was sent. Once per call.

    Return another ``BeforeCall`` to change the requests, ``Answer`` to skip the models,
    ``Deny`` to refuse the call.
    """

    requests: tuple[Request, ...]


@dataclass(frozen=True)
class AfterCall(Event):
    """All replies are there, the slots are free. Once per call.

    Return another ``AfterCall`` to change the replies, ``Deny`` to withhold them.
    """

    requests: tuple[Request, ...]
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class EndCall(Event):
    """The call is over, whatever way. Always fires, once per call; observers only.

    ``outcome``: ``ok | denied | failed | cancelled``. ``seconds`` is the whole time,
    ``handler_seconds`` the part of it that handlers (and people) took.
    """

    outcome: str
    error: BaseException | None
    seconds: float
    handler_seconds: float


@dataclass(frozen=True)
class BeforeModel(Event):
    """One request, complete, before a worker is taken for it. Once per attempt.

    Return another ``BeforeModel`` to change the request, ``Answer`` to skip the model,
    ``Deny`` to refuse the call.
    """

    request: Request


@dataclass(frozen=True)
class StreamChunk(Event):
    """A piece of a streamed reply, on its way to the caller.

    Return another ``StreamChunk`` to change it, ``DROP`` to leave it out, ``Stop`` to end
    the stream.
    """

    request: Request
    chunk: Chunk


@dataclass(frozen=True)
class AfterModel(Event):
    """One reply, the worker's slot given back. Once per attempt that gave a reply.

    Return another ``AfterModel`` to change the reply, ``Deny`` to withhold it, ``Retry`` to
    ask again.
    """

    request: Request
    reply: Reply


@dataclass(frozen=True)
class ModelError(Event):
    """An attempt failed. ``will_retry`` says whether it is tried again if nobody steps in.

    Return ``Recover`` to give a reply instead.
    """

    request: Request
    error: Exception
    will_retry: bool


@dataclass(frozen=True)
class Progress(Event):
    """A local engine has read this much of the prompt (tokens). Observers only."""

    request: Request
    done: int
    total: int
