"""Streaming a reply: attempt by attempt, chunk by chunk."""

from __future__ import annotations

import time
from typing import Any

from byzerllm.client import gates
from byzerllm.client.attempts import Failures, Requests, after_model, before_models, failed
from byzerllm.client.call import Call
from byzerllm.client.effects import END, Close, Emit, Next, Source, Steps
from byzerllm.client.sending import print_requests, ready, wait
from byzerllm.errors import StreamError, Unsupported
from byzerllm.events.payloads import ModelError, Progress, StreamChunk
from byzerllm.events.verdicts import DROP, Stop
from byzerllm.types.engine import Pieces
from byzerllm.types.records import Chunk, Generate, PromptProgress, Reply, Request


def stream_attempts(call: Call) -> Steps[Reply]:
    """Emit the chunks of the reply to the call's only request."""
    failures = Failures(call)
    requests = Requests(call)
    while True:
        reply = yield from _attempt(call, failures, requests)
        if reply is not None:
            return reply
        call.attempt += 1


def _attempt(call: Call, failures: Failures, requests: Requests) -> Steps[Reply | None]:
    """One attempt at a stream; ``None`` where it is to be tried again."""
    progress = _Progress()
    answered = yield from before_models(call, [0], requests)
    if answered:
        reply = answered[0]
    else:
        try:
            reply = yield from _stream_once(call, progress)
        except Exception as error:
            if error is not progress.failure:
                raise  # a handler's error, not the model's
            if progress.emitted:
                yield from _broke_off(call, error)
                raise
            recovered, pause = yield from failed(call, 0, error, failures, requests)
            if recovered is None:
                if pause:
                    yield from wait(call, pause)
                return None
            reply = recovered
            answered = {0: reply}
    if answered:
        yield from emit_whole(call, reply)
        progress.emitted = True
    final = yield from after_model(call, 0, reply, failures, requests)
    if final is None and progress.emitted:
        raise StreamError("Retry came after text had left the stream; use it on whole replies")
    return final


def _broke_off(call: Call, error: Exception) -> Steps[None]:
    """Tell the handlers of ``model_error``; nothing can be recovered once text has left."""
    if call.handlers is not None:
        request = call.requests[0]
        event = ModelError(call.ctx(request), request, error, will_retry=False)
        yield from gates.after(call, "model_error", event)


class _Progress:
    """How far an attempt came: whether text has reached the reader, and how the model failed."""

    def __init__(self) -> None:
        self.emitted = False
        self.failure: Exception | None = None


def _stream_once(call: Call, progress: _Progress) -> Steps[Reply]:
    """One attempt to stream: every chunk through its handlers to the reader."""
    request = ready(call, call.requests[0])
    if not isinstance(request, Generate):
        raise Unsupported(f"{request.kind} requests cannot be streamed")
    if call.verbose:
        print_requests(call, [request])
    runtime, timeout = call.runtime, call.remaining()
    pin = call.pins.get(request.kind, -1)
    source = Source(lambda: runtime.stream(request, pin=pin, timeout=timeout))
    try:
        reply = yield from _read(call, request, source, progress)
    except GeneratorExit:
        source.abandon()  # these steps are being collected: nobody would wait for Close
        raise
    except BaseException:
        yield Close(source)
        raise
    yield Close(source)
    return reply


def _read(call: Call, request: Generate, source: Source[Any], progress: _Progress) -> Steps[Reply]:
    following = Next(source)
    pieces = Pieces()
    watched = call.handlers is not None and bool(call.handlers.of("chunk"))
    started = time.perf_counter()
    first: float | None = None
    while True:
        asked = time.perf_counter()
        try:
            item = yield following
        except Exception as error:
            progress.failure = error
            raise
        finally:
            call.model_seconds += time.perf_counter() - asked
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
                last = Chunk(finish_reason="stop")
                pieces.add(last)
                yield Emit(last)
                break
        pieces.add(item)
        progress.emitted = progress.emitted or bool(item.text or item.reasoning)
        yield Emit(item)
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
