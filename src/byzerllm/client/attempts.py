"""One attempt to ask a model: its events, its failures, and whether there is another."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from byzerllm.client import gates
from byzerllm.client.call import Call
from byzerllm.client.effects import Steps
from byzerllm.client.wire import from_row, to_item
from byzerllm.errors import ByzerError, CallDenied, ConfigError
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


def before_models(call: Call, pending: list[int]) -> Steps[dict[int, Any]]:
    """Run ``before_model`` for each request; the replies (or refusals) it gave, by place."""
    if call.handlers is None:
        return {}
    answered: dict[int, Any] = {}
    for place in pending:
        request = call.requests[place]
        event = BeforeModel(call.ctx(request), request)
        # Callbacks of the old form see the whole batch, and decide once for all attempts.
        last = _old_before if call.attempt == 1 and place == pending[-1] else None
        event, answer = yield from gates.before(
            call, "before_model", event, last=last, extra=(place, pending, answered)
        )
        if place not in answered:
            call.requests[place] = event.request
        if answer is not None:
            answered[place] = gates.reply_of(answer.value, answer.by, event.request.kind)
    if call.attempt == 1 and not call.old_callbacks_asked:
        # A guard answered the last request of a batch; the callbacks decide on the others.
        ctx = call.ctx()
        yield from _old_before(call, BeforeModel(ctx, call.requests[0]), (0, pending, answered))
    return answered


def _old_before(
    call: Call, event: BeforeModel, extra: tuple[int, list[int], dict[int, Any]]
) -> Steps[BeforeModel]:
    """``BEFORE_CALL_MODEL`` callbacks, on all requests that nobody has answered yet."""
    call.old_callbacks_asked = True
    callbacks = gates.old(call, "old_before")
    place, pending, answered = extra
    places = [other for other in pending if other not in answered]
    if not callbacks or not places:
        return event
    call.requests[place] = event.request
    items = [gates.own_copy(to_item(call.requests[at], history=call.history)) for at in places]
    for callback in callbacks:
        go_on, value = yield from gates.ask_old(call, callback, items)
        if not go_on:
            shown = [to_item(call.requests[at], history=call.history) for at in places]
            rows = gates.rows_of(value, shown, callback)
            for at, row in zip(places, rows, strict=False):
                answered[at] = from_row(row)
            return replace(event, request=call.requests[place])
        if value is not None:
            items = gates.items_of(value, len(places), callback)
    for at, item in zip(places, items, strict=False):
        call.requests[at] = gates.changed_by_item(call, call.requests[at], item)
    return replace(event, request=call.requests[place])


def after_model(call: Call, place: int, reply: Reply, failures: Failures) -> Steps[Reply | None]:
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
    if reply.by != "model":
        return reply  # an answer of a person, a hook or a replay is not asked again
    failures.rounds += 1
    if failures.rounds > MAX_FEEDBACK_ROUNDS:
        raise CallDenied(
            f"The answer was sent back {MAX_FEEDBACK_ROUNDS} times, last because: "
            f"{verdict.feedback}"
        )
    call.requests[place] = _with_feedback(request, reply, verdict)
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
    call: Call, place: int, error: Exception, failures: Failures
) -> Steps[tuple[Reply | None, float]]:
    """Recover, wait for another attempt, fall back to another model, or give up (raise)."""
    request = call.requests[place]
    pause = failures.pause_after(error)
    will_retry = pause is not None or bool(failures.fallbacks)
    if call.handlers is not None:
        event = ModelError(call.ctx(request), request, error, will_retry)
        _, verdict = yield from gates.after(call, "model_error", event)
        if isinstance(verdict, Recover):
            return gates.reply_of(verdict.value, verdict.by, request.kind), 0.0
    if pause is not None:
        return None, pause
    if failures.fallbacks:
        call.requests[place] = replace(request, model=failures.fallbacks.pop(0))
        failures.count = 0
        return None, 0.0
    raise error
