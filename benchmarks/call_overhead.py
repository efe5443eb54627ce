"""What a call costs the caller: through the scripted engine, and over the OpenAI wire.

All cases run interleaved in one process, against one local server in another. ``wall`` is the
median time of a call made one after the other, ``CPU`` this process's own time for it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import fake_openai
from table import show

MESSAGES = [{"role": "user", "content": "Name the capital of Germany."}]
Case = tuple[str, Callable[[], Any], bool]


def cases(url: str) -> list[Case]:
    """(name, one call, is it async?)"""
    import aiohttp
    import httpx
    import openai

    from byzerllm import ByzerLLM
    from byzerllm.testing import ScriptedModel, llm_for

    scripted = llm_for(ScriptedModel("Berlin."))
    hosted = ByzerLLM()
    hosted.deploy("", "saas/openai", "fake", {"saas.api_key": "sk-1", "saas.base_url": url})
    hosted.setup_default_model_name("fake")
    body = {"model": "fake", "messages": MESSAGES, "max_tokens": 1024}
    sdk = openai.OpenAI(base_url=url, api_key="sk-1")
    async_sdk = openai.AsyncOpenAI(base_url=url, api_key="sk-1")
    plain_httpx = httpx.Client()
    sessions: list[aiohttp.ClientSession] = []

    async def session() -> aiohttp.ClientSession:
        if not sessions:
            sessions.append(aiohttp.ClientSession())
        return sessions[0]

    async def raw() -> str:
        async with (await session()).post(f"{url}/chat/completions", json=body) as response:
            return str((await response.json())["choices"][0]["message"]["content"])

    async def raw_stream() -> int:
        import json

        count = 0
        streaming = {**body, "stream": True}
        async with (await session()).post(f"{url}/chat/completions", json=streaming) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    count += bool(json.loads(line[6:])["choices"][0]["delta"].get("content"))
        return count

    async def our_stream() -> int:
        count = 0
        async for _ in hosted.async_stream_chat_oai(MESSAGES, delta_mode=True):
            count += 1
        return count

    async def sdk_stream() -> int:
        count = 0
        async for _ in await async_sdk.chat.completions.create(**body, stream=True):
            count += 1
        return count

    def httpx_call() -> str:
        answer = plain_httpx.post(f"{url}/chat/completions", json=body).json()
        return str(answer["choices"][0]["message"]["content"])

    return [
        ("scripted engine, sync", lambda: scripted.chat_oai(MESSAGES), False),
        ("scripted engine, async", lambda: scripted.async_chat_oai(MESSAGES), True),
        ("raw aiohttp, async", raw, True),
        ("byzerllm over the wire, async", lambda: hosted.async_chat_oai(MESSAGES), True),
        ("byzerllm over the wire, sync", lambda: hosted.chat_oai(MESSAGES), False),
        ("httpx.Client, sync", httpx_call, False),
        ("openai SDK, sync", lambda: sdk.chat.completions.create(**body), False),
        ("openai SDK, async", lambda: async_sdk.chat.completions.create(**body), True),
        ("raw aiohttp, 64 events", raw_stream, True),
        ("byzerllm, 64 events, async", our_stream, True),
        (
            "byzerllm, 64 events, sync",
            lambda: sum(1 for _ in hosted.stream_chat_oai(MESSAGES, delta_mode=True)),
            False,
        ),
        ("openai SDK, 64 events", sdk_stream, True),
    ]


async def timed(call: Callable[[], Awaitable[Any]], count: int) -> tuple[list[float], float]:
    walls, cpu = [], time.process_time()
    for _ in range(count):
        started = time.perf_counter()
        await call()
        walls.append(time.perf_counter() - started)
    return walls, time.process_time() - cpu


def timed_plainly(call: Callable[[], Any], count: int) -> tuple[list[float], float]:
    walls, cpu = [], time.process_time()
    for _ in range(count):
        started = time.perf_counter()
        call()
        walls.append(time.perf_counter() - started)
    return walls, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--calls", type=int, default=150)
    options = parser.parse_args()
    todo = cases(fake_openai.start())
    walls: dict[str, list[float]] = {name: [] for name, _, _ in todo}
    cpu: dict[str, float] = dict.fromkeys(walls, 0.0)
    loop = asyncio.new_event_loop()
    for turn in range(options.rounds + 1):
        for name, call, is_async in todo:
            count = options.calls // 10 if "64 events" in name else options.calls
            if is_async:
                found, used = loop.run_until_complete(timed(call, count))
            else:
                found, used = timed_plainly(call, count)
            if turn:  # the first round warms up
                walls[name] += found
                cpu[name] += used
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    base = {
        "call": statistics.median(walls["raw aiohttp, async"]),
        "events": statistics.median(walls["raw aiohttp, 64 events"]),
    }
    rows = []
    for name, found in walls.items():
        wall = statistics.median(found)
        of = base["events" if "64 events" in name else "call"]
        ratio = "" if name.startswith("scripted") else f"{wall / of:.2f}"
        rows.append((name, f"{wall * 1e6:.0f}", f"{cpu[name] / len(found) * 1e6:.0f}", ratio))
    show(("case", "wall µs", "CPU µs", "× raw aiohttp"), rows)


if __name__ == "__main__":
    main()
