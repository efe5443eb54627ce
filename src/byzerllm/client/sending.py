"""Sending requests to workers: checked, within their lengths, with patience."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from byzerllm.client.call import Call
from byzerllm.client.effects import Await, Sleep, Steps
from byzerllm.client.wire import check_json, to_item
from byzerllm.errors import CallTimeout, LengthError
from byzerllm.types.records import Generate, Request, Tokenize
from byzerllm.types.sampling import bare, read


def invoke(call: Call, requests: list[Request]) -> Steps[list[Any]]:
    """Run requests on workers, all at once; an error takes the place of a reply."""
    if not requests:
        return []
    timeout = call.remaining()
    if timeout is not None and timeout <= 0:
        raise CallTimeout(f"{call.model} gave no answer within {call.timeout:g} s")
    runtime, pins = call.runtime, call.pins
    requests = [ready(call, request) for request in requests]
    if call.verbose:
        print_requests(call, requests)

    async def one(request: Request) -> Any:
        try:
            pin = pins.get(request.kind, -1) if pins else -1
            return await runtime.call(request, pin=pin, timeout=timeout)
        except Exception as error:
            return error

    async def all_of_them() -> list[Any]:
        if len(requests) == 1:
            return [await one(requests[0])]
        return await asyncio.gather(*map(one, requests))

    started = time.perf_counter()
    outcomes: list[Any] = yield Await(all_of_them)
    call.model_seconds += time.perf_counter() - started
    return outcomes


def print_requests(call: Call, requests: list[Request]) -> None:
    """What ``verbose`` asks for: the generations as they are sent."""
    from byzerllm.human.show import shown_request

    for request in requests:
        if isinstance(request, Generate):
            item = to_item(request, history=call.history)
            print(shown_request(request.model, item), flush=True)  # noqa: T201


def ready(call: Call, request: Request) -> Request:
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


def wait(call: Call, pause: float) -> Steps[None]:
    """Let some seconds pass before the next attempt; they count as the models' time."""
    yield Sleep(pause)
    call.model_seconds += pause


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
        (outcome,) = yield from invoke(call, [tokenize])
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
