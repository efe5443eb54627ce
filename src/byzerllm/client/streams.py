"""Streaming a reply: attempt by attempt, chunk by chunk."""

from __future__ import annotations

import time
from typing import Any

from byzerllm.client import gates
from byzerllm.client.attempts import Failures, after_model, before_models, failed
from byzerllm.client.call import Call
from byzerllm.client.effects import END, Close, Emit, Next, Source, Steps
from byzerllm.client.sending import ready, wait
from byzerllm.errors import StreamError, Unsupported
from byzerllm.events.payloads import ModelError, Progress, StreamChunk
from byzerllm.events.verdicts import DROP, Stop
from byzerllm.types.engine import Pieces
from byzerllm.types.records import Chunk, Generate, PromptProgress, Reply, Request


def stream_attempts(call: Call) -> Steps[Reply]:
    failures = Failures(call)
    while True:
        reply = yield from _stream_attempt(call, failures)
        if reply is not None:
            return reply
        call.attempt += 1


def _stream_attempt(call: Call, failures: Failures) -> Steps[Reply | None]:
    """One attempt at a stream; ``None`` where it is to be tried again."""
    emitted = _Emitted()
    answered = yield from before_models(call, [0])
    if answered:
        reply: Reply = answered[0]
    else:
        try:
            reply = yield from _stream_once(call, emitted)
        except Exception as error:
            if emitted.any:
                yield from _broke_off(call, error)
                raise
            recovered, pause = yield from failed(call, 0, error, failures)
            if recovered is None:
                if pause:
                    yield from wait(call, pause)
                return None
            reply = recovered
            answered = {0: reply}
    if answered:
        yield from emit_whole(call, reply)
        emitted.any = True
    final = yield from after_model(call, 0, reply, failures)
    if final is None and emitted.any:
        raise StreamError("Retry came after text had left the stream; use it on whole replies")
    return final


def _broke_off(call: Call, error: Exception) -> Steps[None]:
    """Tell the handlers of ``model_error``; nothing can be recovered once text has left."""
    if call.handlers is not None:
        request = call.requests[0]
        event = ModelError(call.ctx(request), request, error, will_retry=False)
        yield from gates.after(call, "model_error", event)


class _Emitted:
    """Whether anything of a stream has reached its reader."""

    any = False


def _stream_once(call: Call, progress: _Emitted) -> Steps[Reply]:
    """One attempt to stream: every chunk through its handlers to the reader."""
    request = ready(call, call.requests[0])
    if not isinstance(request, Generate):
        raise Unsupported(f"{request.kind} requests cannot be streamed")
    runtime, timeout = call.runtime, call.remaining()
    pin = call.pins.get(request.kind, -1)
    source = Source(lambda: runtime.stream(request, pin=pin, timeout=timeout))
    following = Next(source)
    pieces = Pieces()
    watched = call.handlers is not None and bool(call.handlers.of("chunk"))
    started = time.perf_counter()
    first: float | None = None
    try:
        while True:
            item = yield following
            if item is END:
                break
            if type(item) is PromptProgress:
                if call.handlers is not None:
                    event = Progress(call.ctx(request), request, item.done, item.total)
                    yield from gates.observe(call, "progress", event)
                continue
            if first is None and (item.text or item.reasoning):
                first = time.perf_counter() - started
            if watched:
                item = yield from _chunk(call, request, item)
                if item is None:
                    continue
                if isinstance(item, Stop):
                    pieces.add(Chunk(finish_reason="stop"))
                    break
            pieces.add(item)
            progress.any = True
            yield Emit(item)
    finally:
        yield Close(source)
    call.model_seconds += time.perf_counter() - started
    reply = pieces.reply()
    reply.seconds = time.perf_counter() - started
    reply.first_token_seconds = first
    return reply


def emit_whole(call: Call, reply: Reply) -> Steps[None]:
    """A reply that no model streamed, as one chunk, which passes the same handlers."""
    chunk: Any = Chunk(
        text=reply.text,
        finish_reason=reply.finish_reason or "stop",
        usage=reply.usage,
        request_id=reply.request_id,
        by=reply.by,
    )
    if call.handlers is not None:
        chunk = yield from _chunk(call, call.requests[0], chunk)
    if isinstance(chunk, Chunk):
        yield Emit(chunk)


def _chunk(call: Call, request: Request, chunk: Chunk) -> Steps[Any]:
    """A chunk after its handlers: changed, ``None`` if dropped, or ``Stop``."""
    event, verdict = yield from gates.after(
        call, "chunk", StreamChunk(call.ctx(request), request, chunk)
    )
    if verdict is DROP:
        return None
    return verdict if isinstance(verdict, Stop) else event.chunk
