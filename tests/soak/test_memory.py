"""Many thousand calls leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from byzerllm import ByzerLLM
from byzerllm.testing import ScriptedModel, llm_for

if TYPE_CHECKING:
    from wire_server import WireServer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

MEGABYTES = 4.0
"""How much the memory may grow, with the allocator's own unrest in it."""
ANSWER = "Berlin is the capital of Germany."
QUESTION = [{"role": "user", "content": "Name the capital of Germany."}]


def grown(
    work: Callable[[int], None], count: int, resident: Callable[[], float], warm_up: int
) -> float:
    """The megabytes by which memory grew over ``count`` rounds after those of the warm-up."""
    for number in range(warm_up):
        work(number)
    before = resident()
    for number in range(count):
        work(number)
    growth = resident() - before
    print(f"{count} rounds: {before:.1f} MB, {growth:+.2f} MB")
    return growth


def test_calls_and_streams_on_a_scripted_model_leave_nothing(
    footprint: Callable[..., Any], resident: Callable[[], float]
) -> None:
    model = ScriptedModel(ANSWER)
    llm = llm_for(model)

    def call(number: int) -> None:
        assert llm.chat_oai(QUESTION)[0].output == ANSWER
        forget(number)

    def stream(number: int) -> None:
        pieces = llm.stream_chat_oai(QUESTION, delta_mode=True)
        if number % 3:  # every third is closed half-way
            assert "".join(text for text, _ in pieces) == ANSWER
        else:
            next(pieces)
            pieces.close()  # type: ignore[attr-defined]
        forget(number)

    def forget(number: int) -> None:
        if number % 500 == 0:
            model.requests.clear()
            model.settings.clear()

    call(0), stream(1)
    before = footprint()
    assert grown(call, 30_000, resident, warm_up=5_000) < MEGABYTES
    assert grown(stream, 3_000, resident, warm_up=1_000) < MEGABYTES
    assert model.running == 0
    footprint(before)


def test_calls_over_http_leave_nothing(
    wire: WireServer, footprint: Callable[..., Any], resident: Callable[[], float]
) -> None:
    before = footprint()
    llm = ByzerLLM().setup_default_model_name("hosted")
    settings = {"saas.base_url": wire.url, "saas.api_key": "secret-key", "saas.model": "m"}
    llm.deploy("", "saas/openai", "hosted", settings)

    def call(number: int) -> None:
        if number % 5:
            assert llm.chat_oai(QUESTION)[0].output == f"echo {QUESTION[0]['content']}"
        else:
            texts = [text for text, _ in llm.stream_chat_oai(QUESTION)]
            assert texts[-1] == f"echo {QUESTION[0]['content']}"
        if number % 100 == 0:
            wire.requests.clear()

    call(0), call(1)
    held = footprint()
    assert grown(call, 5_000, resident, warm_up=1_500) < MEGABYTES
    footprint(held)
    assert wire.connections < 50  # they were used again
    llm.undeploy("hosted")
    footprint(before)


def test_event_loops_that_come_and_go_leave_no_connection(
    wire: WireServer, footprint: Callable[..., Any], resident: Callable[[], float]
) -> None:
    llm = ByzerLLM().setup_default_model_name("loops")
    settings = {"saas.base_url": wire.url, "saas.api_key": "secret-key", "saas.model": "m"}
    llm.deploy("", "saas/openai", "loops", settings)

    async def some() -> None:
        await asyncio.gather(*(llm.async_chat_oai(QUESTION) for _ in range(4)))

    def loop(number: int) -> None:
        asyncio.run(some())
        if number % 50 == 0:
            wire.requests.clear()

    loop(0)
    before = footprint()
    assert grown(loop, 300, resident, warm_up=100) < MEGABYTES
    footprint(before)
    llm.undeploy("loops")
