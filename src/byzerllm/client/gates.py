"""Running the handlers of an event, and making sense of what they answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from byzerllm.client.effects import Handle, Steps
from byzerllm.client.wire import from_item, to_item
from byzerllm.errors import CallDenied, ConfigError
from byzerllm.events.verdicts import DROP, Answer, Deny, Recover, Retry, Stop
from byzerllm.types.records import GENERATION_KINDS, Reply, Request

if TYPE_CHECKING:
    from byzerllm.client.call import Call
    from byzerllm.events.hooks import Subscription

logger = logging.getLogger(__name__)

_ALLOWED: dict[str, tuple[type, ...]] = {
    "before_call": (Answer, Deny),
    "before_model": (Answer, Deny),
    "after_call": (Deny,),
    "after_model": (Deny, Retry),
    "model_error": (Recover,),
    "chunk": (Stop, type(DROP)),
}


def before(
    call: Call,
    name: str,
    event: Any,
    *,
    last: Callable[..., Steps[Any]] | None = None,
    extra: Any = None,
) -> Steps[tuple[Any, Answer | None]]:
    """Edits, guards, then observers. The event as edited, and the first answer if there is one.

    ``last`` runs behind the guards (callbacks of the old form), unless a guard has answered.

    Raises:
        CallDenied: a guard refused; observers have run all the same.
    """
    assert call.handlers is not None
    gates = [handler for handler in call.handlers.of(name) if handler.role != "observe"]
    answer: Answer | None = None
    try:
        edited_by: Any = None
        for handler in gates:
            event, verdict = yield from _ask(call, handler, event)
            if verdict is None:
                continue
            if isinstance(verdict, Answer):
                answer = verdict
                break
            edited_by = handler if handler.role == "guard" else None
        if edited_by is not None and answer is None:
            event, answer = yield from _look_again(call, gates, edited_by, event)
        if last is not None and answer is None:
            event = yield from last(call, event, extra)
    finally:
        # A call that is being torn down (GeneratorExit) never comes here: its drivers throw
        # StreamClosed instead, which lets these steps go on.
        yield from observe(call, name, event)
    return event, answer


def _look_again(
    call: Call, gates: list[Subscription[Any, Any]], editor: Any, event: Any
) -> Steps[tuple[Any, Answer | None]]:
    """A guard changed the request: the guards before it see the new one, once."""
    for handler in gates[: gates.index(editor)]:
        if handler.role == "guard":
            event, verdict = yield from _ask(call, handler, event)
            if isinstance(verdict, Answer):
                return event, verdict
    return event, None


def after(
    call: Call, name: str, event: Any, *, last: Callable[..., Steps[Any]] | None = None
) -> Steps[tuple[Any, Any]]:
    """Like ``before``, in reverse order, for what has happened: the event and the verdict."""
    assert call.handlers is not None
    verdict: Any = None
    try:
        for handler in call.handlers.of(name, reverse=True):
            if handler.role == "observe":
                continue
            event, verdict = yield from _ask(call, handler, event)
            if verdict is not None and not isinstance(verdict, type(event)):
                break
            verdict = None
        if last is not None:
            event = yield from last(call, event)
    finally:
        yield from observe(call, name, event)
    return event, verdict


def observe(call: Call, name: str, event: Any) -> Steps[None]:
    """Run the observers; what they raise is logged and counted, and goes no further."""
    assert call.handlers is not None
    for handler in call.handlers.of(name):
        if handler.role != "observe":
            continue
        try:
            yield from _timed(
                call, Handle(handler.handler, (event,), handler.timeout, handler.label)
            )
        except Exception:
            handler.failures += 1
            logger.exception("The observer %s failed; the call goes on", handler.label)


def _ask(call: Call, handler: Subscription[Any, Any], event: Any) -> Steps[tuple[Any, Any]]:
    """One handler's verdict; an event of the same type takes the event's place."""
    verdict = yield from _timed(
        call, Handle(handler.handler, (event,), handler.timeout, handler.label)
    )
    if verdict is None:
        return event, None
    if isinstance(verdict, Deny):
        raise CallDenied(verdict.reason or f"Refused by {handler.label}")
    if isinstance(verdict, type(event)):
        return verdict, verdict
    if isinstance(verdict, _ALLOWED[handler.event]):
        return event, verdict
    allowed = [type(event).__name__, *(kind.__name__ for kind in _ALLOWED[handler.event])]
    raise TypeError(
        f"{handler.label} returned {verdict!r}; allowed are None and {', '.join(allowed)}"
    )


def _timed(call: Call, effect: Handle) -> Steps[Any]:
    started = time.perf_counter()
    try:
        return (yield effect)
    finally:
        call.handler_seconds += time.perf_counter() - started


def reply_of(value: Any, by: str, kind: str) -> Reply:
    """An answer's value as a reply."""
    if isinstance(value, Reply):
        return replace(value, by=by)
    if kind in GENERATION_KINDS and not isinstance(value, str):
        raise TypeError(
            f"An answer to a generation is a text, not {type(value).__name__}: {value!r}"
        )
    return Reply(value, by=by, finish_reason="stop" if kind in GENERATION_KINDS else "")


# -- callbacks of the old form ----------------------------------------------------------------


def old(call: Call, name: str) -> list[Subscription[Any, Any]]:
    return call.handlers.of(name) if call.handlers is not None else []


def ask_old(
    call: Call, callback: Subscription[Any, Any], payload: list[dict[str, Any]]
) -> Steps[tuple[bool, Any]]:
    """Ask a callback ``(llm, model, payload)``; its ``(go_on, value)``.

    Raises:
        CallDenied: it answered ``(False, None)``.
        TypeError: it answered anything else but a pair, or nothing.
    """
    handle = Handle(callback.handler, (call.llm, call.model, payload), label=callback.label)
    verdict = yield from _timed(call, handle)
    if verdict is None:
        return True, None
    if not (isinstance(verdict, tuple) and len(verdict) == 2 and isinstance(verdict[0], bool)):
        raise TypeError(
            f"{callback.label} returned {verdict!r}; a callback returns (True, None) to go on, "
            "(True, new list), (False, answer) or (False, None) to refuse"
        )
    go_on, value = verdict
    if not go_on and value is None:
        raise CallDenied(f"Refused by {callback.label}")
    return go_on, value


def items_of(value: Any, count: int, callback: Subscription[Any, Any]) -> list[dict[str, Any]]:
    """The request list a callback put in place of the one it was given."""
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(isinstance(item, dict) for item in value)
    ):
        raise TypeError(
            f"{callback.label} returned (True, {value!r}); a list of {count} request items was due"
        )
    return value


def rows_of(
    value: Any, items: list[dict[str, Any]], callback: Subscription[Any, Any]
) -> list[dict[str, Any]]:
    """The result a callback gave: rows as they are, texts made into rows."""
    if isinstance(value, str):
        value = [value] * len(items) if len(items) == 1 else value
    values = value if isinstance(value, list) else None
    if values is not None and values and all(isinstance(row, str) for row in values):
        if len(values) != len(items):
            raise TypeError(f"{callback.label} gave {len(values)} texts for {len(items)} requests")
        return [
            {"predict": text, "input": item, "metadata": {"by": "hook"}}
            for text, item in zip(values, items, strict=False)
        ]
    if values and all(isinstance(row, dict) and "predict" in row for row in values):
        return values
    raise TypeError(
        f"{callback.label} returned {value!r}; an answer is a text, one text for each of the "
        f"{len(items)} requests, or a list of {{'predict', 'input', 'metadata'}}"
    )


def own_copy(item: dict[str, Any]) -> dict[str, Any]:
    """A copy that a callback may edit in place without changing what the caller owns."""
    return {key: _copied(value) for key, value in item.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value


def changed_by_item(call: Call, request: Request, item: dict[str, Any]) -> Request:
    """The request as a callback left its item."""
    if item == to_item(request, history=call.history):
        return request
    message_format = getattr(request, "messages", None) is not None
    try:
        return from_item(item, request.model, message_format=message_format)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"A BEFORE_CALL_MODEL callback left a bad request: {error}") from error
