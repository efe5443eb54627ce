"""Callbacks of ``add_event_callback``: ``(llm, model, list) -> (go_on, value)``.

They see whole batches, as the dictionaries of earlier releases, and decide once for all attempts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from byzerllm.client.call import Call
from byzerllm.client.effects import Handle, Steps
from byzerllm.client.gates import copied, timed
from byzerllm.client.wire import from_item, from_row, to_item, to_row
from byzerllm.errors import CallDenied, ConfigError
from byzerllm.events.hooks import Subscription
from byzerllm.events.payloads import AfterCall
from byzerllm.human.show import masked
from byzerllm.types.records import Generate, Reply, Request


def before(call: Call, places: list[int]) -> Steps[dict[int, Reply]]:
    """``BEFORE_CALL_MODEL`` on the requests at these places: changes them, or answers them all."""
    callbacks = call.handlers.of("old_before") if call.handlers is not None else []
    if not callbacks or not places:
        return {}
    items = [copied(_item(call, call.requests[place])) for place in places]
    for callback in callbacks:
        go_on, value = yield from _ask(call, callback, items)
        if not go_on:
            shown = [_item(call, call.requests[place]) for place in places]
            rows = _rows(value, shown, callback)
            return {place: from_row(row) for place, row in zip(places, rows, strict=True)}
        if value is not None:
            items = _items(value, len(places), callback)
    for place, item in zip(places, items, strict=True):
        call.requests[place] = _changed(call, call.requests[place], item)
    return {}


def after(call: Call, event: AfterCall) -> Steps[AfterCall]:
    """``AFTER_CALL_MODEL``: rows in, rows out."""
    callbacks = call.handlers.of("old_after") if call.handlers is not None else []
    if not callbacks:
        return event
    items = call.items()
    replies = zip(items, event.replies, strict=True)
    rows = [to_row(item, reply) for item, reply in replies]
    for callback in callbacks:
        go_on, value = yield from _ask(call, callback, rows)
        if value is not None:
            rows = _rows(value, items, callback)
        if not go_on:
            break
    changed = zip(rows, event.replies, strict=True)
    return replace(event, replies=tuple(from_row(row, reply) for row, reply in changed))


def _item(call: Call, request: Request) -> dict[str, Any]:
    # An edit may have put messages before the only one of `chat`: then they are shown too.
    messages = request.messages if isinstance(request, Generate) else None
    return to_item(request, history=call.history or len(messages or ()) > 1)


def _ask(
    call: Call, callback: Subscription[Any, Any], payload: list[dict[str, Any]]
) -> Steps[tuple[bool, Any]]:
    """One callback's ``(go_on, value)``.

    Raises:
        CallDenied: it answered ``(False, None)``.
        TypeError: it answered anything else but a pair, or nothing.
    """
    handle = Handle(callback.handler, (call.llm, call.model, payload), label=callback.label)
    verdict = yield from timed(call, handle)
    if verdict is None:
        return True, None
    if not (isinstance(verdict, tuple) and len(verdict) == 2 and isinstance(verdict[0], bool)):
        raise TypeError(
            f"{callback.label} returned {_shown(verdict)}; a callback returns (True, None) to go "
            "on, (True, new list), (False, answer) or (False, None) to refuse"
        )
    go_on, value = verdict
    if not go_on and value is None:
        raise CallDenied(f"Refused by {callback.label}")
    return go_on, value


def _items(value: Any, count: int, callback: Subscription[Any, Any]) -> list[dict[str, Any]]:
    """The request list a callback put in place of the one it was given."""
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(isinstance(item, dict) for item in value)
    ):
        raise TypeError(
            f"{callback.label} returned (True, {_shown(value)}); a list of {count} request items "
            "was due"
        )
    return value


def _rows(
    value: Any, items: list[dict[str, Any]], callback: Subscription[Any, Any]
) -> list[dict[str, Any]]:
    """The result a callback gave: rows as they are, texts made into rows; one per request."""
    values = [value] if isinstance(value, str) else value
    if isinstance(values, list) and len(values) == len(items):
        if all(isinstance(row, str) for row in values):
            return [
                {"predict": text, "input": item, "metadata": {"by": "hook"}}
                for text, item in zip(values, items, strict=True)
            ]
        if all(isinstance(row, dict) and "predict" in row for row in values):
            return values
    raise TypeError(
        f"{callback.label} returned {_shown(value)}; an answer is a text or a "
        f"{{'predict', 'input', 'metadata'}} for each of the {len(items)} requests"
    )


def _shown(value: Any) -> str:
    """A value as an error may show it: short, and without secrets."""
    return repr(masked(value))[:300]


def _changed(call: Call, request: Request, item: dict[str, Any]) -> Request:
    """The request as a callback left its item."""
    if item == _item(call, request):
        return request
    message_format = getattr(request, "messages", None) is not None
    try:
        return from_item(item, request.model, message_format=message_format)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"A BEFORE_CALL_MODEL callback left a bad request: {error}") from error
