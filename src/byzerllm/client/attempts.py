"""One attempt to ask a model: its events, its failures, and whether there is another."""

from __future__ import annotations

import random
from dataclasses import replace

from byzerllm.client import gates, old_callbacks
from byzerllm.client.call import Call
from byzerllm.client.effects import Steps
from byzerllm.errors import ByzerError, CallAborted, CallDenied, ConfigError, NotYet
from byzerllm.events.payloads import AfterModel, BeforeModel, ModelError
from byzerllm.events.verdicts import Recover, Retry
from byzerllm.types.records import Generate, Message, Reply, Request

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before the second attempt, doubled for each one after it up to the longest."""
LONGEST_WAIT = 60.0
"""Seconds that a provider may ask us to wait; beyond that the caller had better know."""
UNREACHABLE_RETRIES = 2
"""Further attempts where there is no connection at all: it is rarely a matter of patience."""
MAX_FEEDBACK_ROUNDS = 3
"""How often ``Retry(feedback)`` may ask again in one call."""


class Failures:
    """What went wrong so far for one request, and whether to ask again."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.count = 0
        self.rounds = 0
        self.fallbacks = list(call.fallbacks)

    def pause_after(self, error: Exception) -> float | None:
        """Seconds to wait before asking again; ``None``: do not."""
        if not isinstance(error, ByzerError) or not error.retryable:
            return None
        bound = self._call.max_retries
        if isinstance(error, ConnectionError):
            bound = min(bound, UNREACHABLE_RETRIES)
        if self.count >= bound:
            return None
        pause = error.retry_after
        if pause is None:
            longest: float = min(FIRST_PAUSE * 2.0**self.count, LONGEST_PAUSE)
            pause = longest * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret
        left = self._call.remaining()
        if pause > LONGEST_WAIT or (left is not None and pause >= left):
            return None  # its own error says more than a time-out after a long silence
        self.count += 1
        return pause


class Requests:
    """The requests of a call from attempt to attempt.

    Edits run again for every attempt, on the request as the user gave it. What a guard, a person
    or a callback of the old form has changed stays: they decide once.
    """

    def __init__(self, call: Call) -> None:
        if call.handlers is not None:
            call.requests = [gates.own_copy(request) for request in call.requests]
        self.given = list(call.requests)
        self.decided = [False] * len(self.given)


def before_models(call: Call, pending: list[int], requests: Requests) -> Steps[dict[int, Reply]]:
    """``before_model`` for each request; the replies that handlers gave, by place."""
    if call.handlers is None:
        return {}
    answered: dict[int, Reply] = {}
    events: dict[int, BeforeModel] = {}
    try:
        for place in pending:
            yield from _edit_and_guard(call, place, requests, events, answered)
        if call.attempt == 1:
            left = [place for place in pending if place not in answered]
            before = [call.requests[place] for place in left]
            answered.update((yield from old_callbacks.before(call, left)))
            for place, request in zip(left, before, strict=True):
                if place not in answered and call.requests[place] != request:
                    requests.decided[place] = True
                    yield from _guard(call, place, events, answered)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _observe(call, events)
        raise
    yield from _observe(call, events)
    return answered


def _edit_and_guard(
    call: Call,
    place: int,
    requests: Requests,
    events: dict[int, BeforeModel],
    answered: dict[int, Reply],
) -> Steps[None]:
    decided = requests.decided[place]
    request = call.requests[place] if decided else requests.given[place]
    event = events[place] = BeforeModel(call.ctx(request), request)
    if not decided:
        event, answer = yield from gates.edit(call, "before_model", event)
        events[place] = event
        if answer is not None:
            answered[place] = gates.reply_of(answer.value, answer.by, event.request.kind)
            return
    edited = call.requests[place] = event.request
    yield from _guard(call, place, events, answered)
    requests.decided[place] = decided or call.requests[place] != edited


def _guard(
    call: Call, place: int, events: dict[int, BeforeModel], answered: dict[int, Reply]
) -> Steps[None]:
    request = call.requests[place]
    events[place] = BeforeModel(call.ctx(request), request)
    event, answer = yield from gates.guard(call, "before_model", events[place])
    events[place] = event
    call.requests[place] = event.request
    if answer is not None:
        answered[place] = gates.reply_of(answer.value, answer.by, event.request.kind)


def _observe(call: Call, events: dict[int, BeforeModel]) -> Steps[None]:
    for event in events.values():
        yield from gates.observe(call, "before_model", event)


def after_model(
    call: Call, place: int, reply: Reply, failures: Failures, requests: Requests
) -> Steps[Reply | None]:
    """The reply after its handlers; ``None`` where they want the model asked again."""
    if call.handlers is None:
        return reply
    request = call.requests[place]
    event, verdict = yield from gates.after(
        call, "after_model", AfterModel(call.ctx(request), request, reply)
    )
    if not isinstance(verdict, Retry):
        final: Reply = event.reply
        return final
    failures.rounds += 1
    if failures.rounds > MAX_FEEDBACK_ROUNDS:
        raise CallDenied(
            f"The answer was sent back {MAX_FEEDBACK_ROUNDS} times, last because: "
            f"{verdict.feedback}"
        )
    base = request if requests.decided[place] else requests.given[place]
    requests.given[place] = call.requests[place] = _with_feedback(base, reply, verdict)
    return None


def _with_feedback(request: Request, reply: Reply, retry: Retry) -> Request:
    if not isinstance(request, Generate):
        raise ConfigError("Retry is for generations; other requests have nothing to feed back to")
    model = retry.model or request.model
    if request.messages is None:
        prompt = f"{request.prompt}{reply.text}\n{retry.feedback}\n"
        return replace(request, model=model, prompt=prompt)
    said: list[Message] = [
        {"role": "assistant", "content": reply.text},
        {"role": "user", "content": retry.feedback},
    ]
    return replace(request, model=model, messages=[*request.messages, *said])


def failed(
    call: Call, place: int, error: Exception, failures: Failures, requests: Requests
) -> Steps[tuple[Reply | None, float]]:
    """Recover, wait for another attempt, fall back to another model, or give up (raise)."""
    request = call.requests[place]
    pause = failures.pause_after(error)
    fall_back = bool(failures.fallbacks) and not isinstance(error, _FINAL)
    if call.handlers is not None:
        event = ModelError(call.ctx(request), request, error, pause is not None or fall_back)
        try:
            _, verdict = yield from gates.after(call, "model_error", event)
        except Exception as problem:
            if problem.__cause__ is None:
                problem.__cause__ = error  # what the handler was told of must not be lost
            raise
        if isinstance(verdict, Recover):
            return gates.reply_of(verdict.value, verdict.by, request.kind), 0.0
    if pause is not None:
        return None, pause
    if fall_back:
        other = failures.fallbacks.pop(0)
        requests.given[place] = replace(requests.given[place], model=other)
        call.requests[place] = replace(request, model=other)
        failures.count = 0
        return None, 0.0
    raise error


_FINAL = (CallAborted, CallDenied, ConfigError, NotYet)
"""Failures that are the caller's doing: no other model is asked then."""
