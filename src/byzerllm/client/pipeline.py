"""The one way to a model. Every public call, plain or async, whole or streamed, comes here.

::

    limits → before_call → [ before_model → worker → after_model ] → after_call → end_call
                                   ▲ retry, fallback

Written once as generators of effects (``effects.py``); nothing here knows of threads or loops.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from byzerllm.client import gates
from byzerllm.client.effects import (
    END,
    Await,
    Close,
    Emit,
    Next,
    Sleep,
    Source,
    Steps,
    StreamClosed,
)
from byzerllm.client.wire import check_json, from_row, to_item, to_row
from byzerllm.errors import (
    ByzerError,
    CallDenied,
    CallTimeout,
    ConfigError,
    LengthError,
    StreamError,
    Unsupported,
)
from byzerllm.events.payloads import (
    AfterCall,
    AfterModel,
    BeforeCall,
    BeforeModel,
    CallContext,
    EndCall,
    ModelError,
    Progress,
    StreamChunk,
)
from byzerllm.events.verdicts import DROP, Answer, Recover, Retry, Stop
from byzerllm.types.engine import Pieces
from byzerllm.types.records import (
    Chunk,
    Generate,
    Message,
    PromptProgress,
    Reply,
    Request,
    Tokenize,
)
from byzerllm.types.sampling import bare, read

if TYPE_CHECKING:
    from byzerllm.client.byzerllm import ByzerLLM
    from byzerllm.events.hooks import Handlers
    from byzerllm.runtime.base import Runtime

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before the second attempt, doubled for each one after it up to the longest."""
UNREACHABLE_RETRIES = 2
"""Further attempts where there is no connection at all: it is rarely a matter of patience."""
MAX_FEEDBACK_ROUNDS = 3
"""How often ``Retry(feedback)`` may ask again in one call."""


@dataclass
class Limits:
    """The lengths set for a model, in tokens; ``None`` = not limited."""

    max_input: int | None
    max_model: int | None
    budget: int
    """New tokens where the request does not say."""


@dataclass
class Call:
    """One call of a user on its way through the pipeline."""

    llm: ByzerLLM
    runtime: Runtime
    model: str
    method: str
    requests: list[Request]
    handlers: Handlers | None = None
    limits: Limits | None = None
    message_format: bool = True
    stream: bool = False
    is_async: bool = False
    history: bool = True
    """Whether the items of this method carry the key ``history``."""
    timeout: float | None = None
    """Seconds the models may take altogether; people's time does not count."""
    max_retries: int = 2
    fallbacks: Sequence[str] = ()
    pins: Mapping[str, int] = field(default_factory=dict)
    default_budget: int | None = None
    attempt: int = 1
    old_callbacks_asked: bool = False
    context: CallContext | None = None
    handler_seconds: float = 0.0
    model_seconds: float = 0.0

    @property
    def kind(self) -> str:
        return self.requests[0].kind

    def ctx(self, request: Request | None = None) -> CallContext:
        if self.context is None:
            self.context = CallContext(
                call_id=uuid.uuid4().hex,
                method=self.method,
                kind=self.kind,
                model=self.model,
                stream=self.stream,
                is_async=self.is_async,
            )
        if self.attempt == self.context.attempt and (
            request is None or request.model == self.context.model
        ):
            return self.context
        model = self.model if request is None else request.model
        return replace(self.context, attempt=self.attempt, model=model)

    def items(self) -> list[dict[str, Any]]:
        return [to_item(request, history=self.history) for request in self.requests]

    def remaining(self) -> float | None:
        """Seconds left for the models.

        Raises:
            CallTimeout: none are.
        """
        if self.timeout is None:
            return None
        left = self.timeout - self.model_seconds
        if left <= 0:
            raise CallTimeout(f"{self.model} gave no answer within {self.timeout:g} s")
        return left


# -- whole replies ----------------------------------------------------------------------------


def run(call: Call) -> Steps[list[Reply]]:
    """All replies of a call, in the order of its requests."""
    if call.handlers is None:
        yield from check_lengths(call)
        return (yield from _ask_all(call))
    return (yield from _until_the_end(call, _with_events(call)))


def _with_events(call: Call) -> Steps[list[Reply]]:
    yield from check_lengths(call)
    answer = yield from _before_call(call)
    if answer is not None:
        replies = _answered_all(call, answer)
    else:
        replies = yield from _ask_all(call)
    return (yield from _after_call(call, replies))


def _until_the_end(call: Call, body: Steps[T]) -> Steps[T]:
    """Run the body, and tell the observers of ``end_call`` how it went, whatever way."""
    started = time.perf_counter()
    outcome = "ok"
    problem: BaseException | None = None
    try:
        result: T = yield from body
        return result
    except GeneratorExit:
        raise
    except CallDenied as error:
        outcome, problem = "denied", error
        raise
    except Exception as error:
        outcome, problem = "failed", error
        raise
    except BaseException as error:
        outcome, problem = "cancelled", error
        raise
    finally:
        # On GeneratorExit nobody drives these steps any more; that only happens to a call
        # that was never begun.
        event = EndCall(
            call.ctx(), outcome, problem, time.perf_counter() - started, call.handler_seconds
        )
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
    event, _ = yield from gates.after(call, "after_call", event, last=_old_after)
    return list(event.replies)


def _old_after(call: Call, event: AfterCall) -> Steps[AfterCall]:
    """``AFTER_CALL_MODEL`` callbacks: rows in, rows out."""
    callbacks = gates.old(call, "old_after")
    if not callbacks:
        return event
    items = call.items()
    rows = [to_row(item, reply) for item, reply in zip(items, event.replies, strict=False)]
    for callback in callbacks:
        go_on, value = yield from gates.ask_old(call, callback, rows)
        if value is not None:
            rows = gates.rows_of(value, items, callback)
        if not go_on:
            break
    known = dict(enumerate(event.replies))
    replies = [from_row(row, known.get(place)) for place, row in enumerate(rows)]
    return replace(event, replies=tuple(replies))


def _answered_all(call: Call, answer: Answer) -> list[Reply]:
    """An answer to a whole call: one value for its only request, or a list with one for each."""
    count = len(call.requests)
    values = answer.value if isinstance(answer.value, list) and count > 1 else [answer.value]
    if len(values) == 1 and count > 1:
        values = values * count
    if len(values) != count:
        raise ConfigError(f"The answer has {len(values)} values for {count} requests")
    return [gates.reply_of(value, answer.by, call.kind) for value in values]


# -- attempts ---------------------------------------------------------------------------------


def _ask_all(call: Call) -> Steps[list[Reply]]:
    """Ask the models until every request has its reply."""
    if call.handlers is None and len(call.requests) == 1 and not call.fallbacks:
        return (yield from _ask_one_plainly(call))
    replies: list[Reply | None] = [None] * len(call.requests)
    pending = list(range(len(replies)))
    failures = [_Failures(call) for _ in replies]
    while True:
        answered = yield from _before_models(call, pending)
        asked = [place for place in pending if place not in answered]
        outcomes = yield from _invoke(call, [call.requests[place] for place in asked])
        again: list[int] = []
        pause = 0.0
        fatal: Exception | None = None
        for place, outcome in [*answered.items(), *zip(asked, outcomes, strict=True)]:
            if isinstance(outcome, Exception):
                try:
                    recovered, seconds = yield from _failed(call, place, outcome, failures[place])
                except Exception as error:
                    fatal = fatal or error  # the others of the batch are told of theirs too
                    continue
                if recovered is None:
                    pause = max(pause, seconds)
                    again.append(place)
                    continue
                outcome = recovered
            reply = yield from _after_model(call, place, outcome, failures[place])
            if reply is None:
                again.append(place)
            replies[place] = reply
        if fatal is not None:
            raise fatal
        if not again:
            return [reply for reply in replies if reply is not None]
        if pause:
            yield from _wait(call, pause)
        pending = sorted(again)
        call.attempt += 1


def _ask_one_plainly(call: Call) -> Steps[list[Reply]]:
    """One request and no handlers: nothing but the worker, and patience."""
    failures = _Failures(call)
    while True:
        outcomes = yield from _invoke(call, call.requests)
        outcome = outcomes[0]
        if not isinstance(outcome, Exception):
            return outcomes
        pause = failures.pause_after(outcome)
        if pause is None:
            raise outcome
        yield from _wait(call, pause)
        call.attempt += 1


def _wait(call: Call, pause: float) -> Steps[None]:
    left = call.remaining()
    if left is not None and pause >= left:
        raise CallTimeout(f"{call.model} gave no answer within {call.timeout:g} s")
    yield Sleep(pause)
    call.model_seconds += pause


def _invoke(call: Call, requests: list[Request]) -> Steps[list[Any]]:
    """Run requests on workers, all at once; an error takes the place of a reply."""
    if not requests:
        return []
    timeout = call.remaining()
    runtime, pins = call.runtime, call.pins
    requests = [_ready(call, request) for request in requests]

    async def one(request: Request) -> Any:
        try:
            pin = pins.get(request.kind, -1) if pins else -1
            return await runtime.call(request, pin=pin, timeout=timeout)
        except Exception as error:
            return error

    async def all_of_them() -> list[Any]:
        if len(requests) == 1:
            return [await one(requests[0])]
        import asyncio

        return await asyncio.gather(*map(one, requests))

    started = time.perf_counter()
    outcomes: list[Any] = yield Await(all_of_them)
    call.model_seconds += time.perf_counter() - started
    return outcomes


def _ready(call: Call, request: Request) -> Request:
    """The request as engines get it: checked, and with the default number of new tokens."""
    for key, value in request.params.items():
        check_json(value, key)
    if not isinstance(request, Generate):
        return request
    if request.messages is not None:
        for number, message in enumerate(request.messages):
            content = message.get("content")
            if type(content) is not str:
                check_json(content, f"the content of message {number}")
    if call.default_budget is None or any(
        bare(key) in _BUDGETS and value is not None for key, value in request.params.items()
    ):
        return request
    return replace(request, params={**request.params, "max_length": call.default_budget})


_BUDGETS = frozenset({"max_length", "max_tokens", "max_new_tokens", "max_completion_tokens"})


class _Failures:
    """What went wrong so far for one request, and whether to ask again."""

    def __init__(self, call: Call) -> None:
        self._max = call.max_retries
        self.count = 0
        self.rounds = 0
        self.fallbacks = list(call.fallbacks)

    def pause_after(self, error: Exception) -> float | None:
        """Seconds to wait before asking again; ``None``: do not."""
        if not isinstance(error, ByzerError) or not error.retryable:
            return None
        bound = self._max
        if isinstance(error, ConnectionError):
            bound = min(bound, UNREACHABLE_RETRIES)
        if self.count >= bound:
            return None
        self.count += 1
        if error.retry_after is not None:
            return error.retry_after
        longest: float = min(FIRST_PAUSE * 2.0 ** (self.count - 1), LONGEST_PAUSE)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret


def _before_models(call: Call, pending: list[int]) -> Steps[dict[int, Any]]:
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


def _after_model(call: Call, place: int, reply: Reply, failures: _Failures) -> Steps[Reply | None]:
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


def _failed(
    call: Call, place: int, error: Exception, failures: _Failures
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


# -- streams ----------------------------------------------------------------------------------


def run_stream(call: Call) -> Steps[Reply]:
    """Emit the chunks of a reply; the result is the reply as a whole."""
    if call.handlers is None:
        yield from check_lengths(call)
        return (yield from _stream_attempts(call))
    return (yield from _until_the_end(call, _stream_with_events(call)))


def _stream_with_events(call: Call) -> Steps[Reply]:
    yield from check_lengths(call)
    answer = yield from _before_call(call)
    if answer is not None:
        reply = _answered_all(call, answer)[0]
        yield from _emit_whole(call, reply)
    else:
        reply = yield from _stream_attempts(call)
    replies = yield from _after_call(call, [reply])
    return replies[0]


def _emit_whole(call: Call, reply: Reply) -> Steps[None]:
    """A reply that no model streamed, as one chunk, which passes the same handlers."""
    chunk: Any = Chunk(
        text=reply.text,
        finish_reason=reply.finish_reason or "stop",
        usage=reply.usage,
        request_id=reply.request_id,
    )
    if call.handlers is not None:
        chunk = yield from _chunk(call, call.requests[0], chunk)
    if isinstance(chunk, Chunk):
        yield Emit(chunk)


def _stream_attempts(call: Call) -> Steps[Reply]:
    failures = _Failures(call)
    while True:
        reply = yield from _stream_attempt(call, failures)
        if reply is not None:
            return reply
        call.attempt += 1


def _stream_attempt(call: Call, failures: _Failures) -> Steps[Reply | None]:
    """One attempt at a stream; ``None`` where it is to be tried again."""
    emitted = _Emitted()
    answered = yield from _before_models(call, [0])
    if answered:
        reply: Reply = answered[0]
    else:
        try:
            reply = yield from _stream_once(call, emitted)
        except Exception as error:
            if emitted.any:
                yield from _broke_off(call, error)
                raise
            recovered, pause = yield from _failed(call, 0, error, failures)
            if recovered is None:
                if pause:
                    yield from _wait(call, pause)
                return None
            reply = recovered
            answered = {0: reply}
    if answered:
        yield from _emit_whole(call, reply)
        emitted.any = True
    final = yield from _after_model(call, 0, reply, failures)
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
    request = _ready(call, call.requests[0])
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


def _chunk(call: Call, request: Request, chunk: Chunk) -> Steps[Any]:
    """A chunk after its handlers: changed, ``None`` if dropped, or ``Stop``."""
    event, verdict = yield from gates.after(
        call, "chunk", StreamChunk(call.ctx(request), request, chunk)
    )
    if verdict is DROP:
        return None
    return verdict if isinstance(verdict, Stop) else event.chunk


# -- limits -----------------------------------------------------------------------------------


def check_lengths(call: Call) -> Steps[None]:
    """Refuse generations that are longer than what was set for their model.

    Raises:
        LengthError: with the numbers.
    """
    limits = call.limits
    if limits is None:
        return
    for request in call.requests:
        if not isinstance(request, Generate):
            continue
        tokenize = Tokenize(request.model, request.text)
        (outcome,) = yield from _invoke(call, [tokenize])
        if isinstance(outcome, Exception):
            raise LengthError(
                f"{request.model} has a length limit and cannot count tokens: {outcome}. "
                "ByzerLLM(force_skip_context_length_check=True) leaves the check out"
            ) from outcome
        size = len(outcome.value)
        if limits.max_input is not None and size > limits.max_input:
            raise LengthError(
                f"The input has {size} tokens, and {request.model} takes {limits.max_input} "
                "(setup_max_input_length). Shorten it"
            )
        budget = read(request.params).max_tokens
        budget = limits.budget if budget is None else budget
        if limits.max_model is not None and size + budget > limits.max_model:
            raise LengthError(
                f"The input has {size} tokens and {budget} more are to be generated, which "
                f"exceeds the {limits.max_model} of {request.model} (setup_max_model_length). "
                "Shorten the input or lower max_length"
            )


__all__ = ["Call", "Limits", "StreamClosed", "run", "run_stream"]
