"""Running the handlers of an event, and making sense of what they answer.

Handlers get copies: what they change in place changes nothing. They change things by what they
return.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from byzerllm.client.effects import Handle, Steps
from byzerllm.errors import CallDenied
from byzerllm.events.verdicts import DROP, Answer, Deny, Recover, Retry, Stop
from byzerllm.types.records import GENERATION_KINDS, Reply

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
_MOST_ROUNDS = 5
"""How often guards may look at each other's changes before the call is refused."""


def edit(call: Call, name: str, event: Any) -> Steps[tuple[Any, Answer | None]]:
    """Run the edits: the event as they leave it, and an answer if one of them gives one."""
    for handler in _with_role(call, name, "edit"):
        event, verdict = yield from _ask(call, handler, event)
        if isinstance(verdict, Answer):
            return event, verdict
    return event, None


def guard(call: Call, name: str, event: Any) -> Steps[tuple[Any, Answer | None]]:
    """Run the guards until all have seen the event as it is.

    Raises:
        CallDenied: one refused, or they change each other's changes without end.
    """
    guards = _with_role(call, name, "guard")
    last_to_change: Any = None
    for _ in range(_MOST_ROUNDS):
        changed_by: Any = None
        for handler in guards:
            if handler is last_to_change and changed_by is None:
                return event, None  # those behind it have seen its change in the last round
            event, verdict = yield from _ask(call, handler, event)
            if isinstance(verdict, Answer):
                return event, verdict
            if verdict is not None:
                changed_by = handler
        if changed_by is None:
            return event, None
        last_to_change = changed_by
    raise CallDenied(f"The guards of {name} change each other's changes without end")


def before(call: Call, name: str, event: Any) -> Steps[tuple[Any, Answer | None]]:
    """Edits, guards, then observers, which run whatever the others decided."""
    try:
        event, answer = yield from edit(call, name, event)
        if answer is None:
            event, answer = yield from guard(call, name, event)
    except GeneratorExit:
        raise
    except BaseException:
        yield from observe(call, name, event)
        raise
    yield from observe(call, name, event)
    return event, answer


def after(
    call: Call, name: str, event: Any, *, last: Callable[..., Steps[Any]] | None = None
) -> Steps[tuple[Any, Any]]:
    """The handlers of something that has happened: the event as they leave it, and a verdict.

    ``last`` runs behind them (callbacks of the old form). Observers run in any case.
    """
    assert call.handlers is not None
    verdict: Any = None
    try:
        for handler in call.handlers.of(name, reverse=True):
            if handler.role == "observe":
                continue
            event, verdict = yield from _ask(call, handler, event)
            if isinstance(verdict, Retry) and event.reply.by != "model":
                verdict = None  # an answer of a person, a hook or a replay is not asked again
            if verdict is not None and not isinstance(verdict, type(event)):
                break
            verdict = None
        if last is not None:
            event = yield from last(call, event)
    except GeneratorExit:
        raise
    except BaseException:
        yield from observe(call, name, event)
        raise
    yield from observe(call, name, event)
    return event, verdict


def observe(call: Call, name: str, event: Any) -> Steps[None]:
    """Run the observers; what they raise is logged and counted, and goes no further."""
    for handler in _with_role(call, name, "observe"):
        try:
            yield from _run(call, handler, event)
        except Exception:
            handler.failures += 1
            logger.exception("The observer %s failed; the call goes on", handler.label)


def _with_role(call: Call, name: str, role: str) -> list[Subscription[Any, Any]]:
    found = call.handlers.of(name) if call.handlers is not None else []
    return [handler for handler in found if handler.role == role]


def _ask(call: Call, handler: Subscription[Any, Any], event: Any) -> Steps[tuple[Any, Any]]:
    """One handler's verdict; an event of the same type takes the event's place."""
    verdict = yield from _run(call, handler, event)
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


def _run(call: Call, handler: Subscription[Any, Any], event: Any) -> Steps[Any]:
    handle = Handle(handler.handler, (private(event),), handler.timeout, handler.label)
    return (yield from timed(call, handle))


def timed(call: Call, effect: Handle) -> Steps[Any]:
    """Do the effect; its time counts as the handlers'."""
    started = time.perf_counter()
    try:
        return (yield effect)
    finally:
        call.handler_seconds += time.perf_counter() - started


def private(event: Any) -> Any:
    """The event with copies of what could be changed in place."""
    copies: dict[str, Any] = {}
    for name in ("request", "reply", "chunk"):
        if hasattr(event, name):
            copies[name] = own_copy(getattr(event, name))
    for name in ("requests", "replies"):
        if hasattr(event, name):
            copies[name] = tuple(own_copy(record) for record in getattr(event, name))
    return replace(event, **copies) if copies else event


def own_copy(record: Any) -> Any:
    """A record with lists and dictionaries of its own."""
    changed = {
        name: copied(value)
        for name, value in vars(record).items()
        if isinstance(value, (list, dict))
    }
    return replace(record, **changed)


def copied(value: Any) -> Any:
    """Lists and dictionaries copied all the way down; everything else is shared."""
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [copied(inner) for inner in value]
    return value


def reply_of(value: Any, by: str, kind: str) -> Reply:
    """An answer's value as a reply."""
    if isinstance(value, Reply):
        return replace(value, by=by)
    if kind in GENERATION_KINDS and not isinstance(value, str):
        raise TypeError(
            f"An answer to a generation is a text, not {type(value).__name__}: {value!r}"
        )
    return Reply(value, by=by, finish_reason="stop" if kind in GENERATION_KINDS else "")
