"""The one way to a model. Every public call, plain or async, whole or streamed, comes here.

::

    limits → before_call → [ before_model → worker → after_model ] → after_call → end_call
                                   ▲ retry, fallback

Written once as generators of effects (``effects.py``); nothing here knows of threads or loops.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

from byzerllm.client import gates, old_callbacks
from byzerllm.client.attempts import Failures, Requests, after_model, before_models, failed
from byzerllm.client.call import Call
from byzerllm.client.effects import Steps
from byzerllm.client.sending import check_lengths, invoke, wait
from byzerllm.client.streams import emit_whole, stream_attempts
from byzerllm.errors import CallDenied, ConfigError
from byzerllm.events.payloads import AfterCall, BeforeCall, EndCall
from byzerllm.events.verdicts import Answer
from byzerllm.types.records import Reply

T = TypeVar("T")


def run(call: Call) -> Steps[list[Reply]]:
    """All replies of a call, in the order of its requests."""
    if call.handlers is None:
        yield from check_lengths(call)
        return (yield from ask_all(call))
    return (yield from _until_the_end(call, _with_events(call)))


def run_stream(call: Call) -> Steps[Reply]:
    """Emit the chunks of a reply; the result is the reply as a whole."""
    if call.handlers is None:
        yield from check_lengths(call)
        return (yield from stream_attempts(call))
    return (yield from _until_the_end(call, _stream_with_events(call)))


def _with_events(call: Call) -> Steps[list[Reply]]:
    yield from check_lengths(call)
    answer = yield from _before_call(call)
    if answer is not None:
        replies = _answered_all(call, answer)
    else:
        replies = yield from ask_all(call)
    return (yield from _after_call(call, replies))


def _stream_with_events(call: Call) -> Steps[Reply]:
    yield from check_lengths(call)
    answer = yield from _before_call(call)
    if answer is not None:
        reply = _answered_all(call, answer)[0]
        yield from emit_whole(call, reply)
    else:
        reply = yield from stream_attempts(call)
    replies = yield from _after_call(call, [reply])
    return replies[0]


def _until_the_end(call: Call, body: Steps[T]) -> Steps[T]:
    """Run the body, and tell the observers of ``end_call`` how it went, whatever way."""
    started = time.perf_counter()
    try:
        result: T = yield from body
    except GeneratorExit:
        raise  # these steps are being collected: nobody would do what they ask for
    except BaseException as error:
        yield from _end(call, _outcome_of(error), error, started)
        raise
    yield from _end(call, "ok", None, started)
    return result


def _outcome_of(error: BaseException) -> str:
    if isinstance(error, CallDenied):
        return "denied"
    return "failed" if isinstance(error, Exception) else "cancelled"


def _end(call: Call, outcome: str, error: BaseException | None, started: float) -> Steps[None]:
    seconds = time.perf_counter() - started
    event = EndCall(call.ctx(), outcome, error, seconds, call.handler_seconds)
    yield from gates.observe(call, "end_call", event)


def _before_call(call: Call) -> Steps[Any]:
    event = BeforeCall(call.ctx(), tuple(call.requests))
    event, answer = yield from gates.before(call, "before_call", event)
    if len(event.requests) != len(call.requests):
        raise ConfigError("A before_call handler changed the number of requests")
    call.requests = list(event.requests)
    return answer


def _after_call(call: Call, replies: list[Reply]) -> Steps[list[Reply]]:
    event = AfterCall(call.ctx(), tuple(call.requests), tuple(replies))
    event, _ = yield from gates.after(call, "after_call", event, last=old_callbacks.after)
    return list(event.replies)


def _answered_all(call: Call, answer: Answer) -> list[Reply]:
    """An answer to a whole call: one value for its only request, or a list with one for each."""
    count = len(call.requests)
    values = answer.value if isinstance(answer.value, list) and count > 1 else [answer.value]
    if len(values) == 1 and count > 1:
        values = values * count
    if len(values) != count:
        raise ConfigError(f"The answer has {len(values)} values for {count} requests")
    return [gates.reply_of(value, answer.by, call.kind) for value in values]


def ask_all(call: Call) -> Steps[list[Reply]]:
    """Ask the models until every request has its reply."""
    replies: list[Reply | None] = [None] * len(call.requests)
    pending = list(range(len(replies)))
    failures = [Failures(call) for _ in replies]
    requests = Requests(call)
    while True:
        answered = yield from before_models(call, pending, requests)
        asked = [place for place in pending if place not in answered]
        outcomes = yield from invoke(call, [call.requests[place] for place in asked])
        again: list[int] = []
        pause = 0.0
        fatal: Exception | None = None
        for place, outcome in [*answered.items(), *zip(asked, outcomes, strict=True)]:
            try:
                if isinstance(outcome, Exception):
                    recovered, seconds = yield from failed(
                        call, place, outcome, failures[place], requests
                    )
                    pause = max(pause, seconds)
                    reply = recovered
                else:
                    reply = outcome
                if reply is not None:
                    reply = yield from after_model(call, place, reply, failures[place], requests)
            except Exception as error:
                fatal = fatal or error  # the others of the batch are told of theirs too
                continue
            if reply is None:
                again.append(place)
            replies[place] = reply
        if fatal is not None:
            raise fatal
        if not again:
            return [reply for reply in replies if reply is not None]
        if pause:
            yield from wait(call, pause)
        pending = sorted(again)
        call.attempt += 1
