"""The bundled model through byzerllm, beside the same engine used bare, in interleaved pairs.

Bare is xllamacpp's ``Server`` in a process of its own, called without HTTP by threads. Both
have the same threads, slots and settings, and only one of them works at a time. ``warm`` is the
time to the first token of a prompt that the engine has just read.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import threading
import time
from typing import Any

from table import show

from byzerllm import ByzerLLM, models

PROMPTS = [
    "Write a short paragraph about the city of Paris.",
    "Explain how a bicycle stays upright.",
    "List five uses for a paper clip.",
    "Tell a short story about a fox and a river.",
    "What is the difference between rain and snow?",
    "Describe how bread is made.",
    "Give advice to someone who starts a new job.",
    "Explain what a database index is.",
]


def bare_engine(pipe: Any, path: str, threads: int) -> None:
    """Answers ``(prompts, tokens)`` with ``(seconds, tokens, seconds to the first token)``."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.kv_unified = 16384, 8, True
    params.n_batch = params.n_ubatch = 256
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 256
    params.verbosity = -1
    server = xllamacpp.Server(params)
    pipe.send("ready")
    while (job := pipe.recv()) is not None:
        prompts, tokens = job
        firsts: list[float] = []

        def ask(prompt: str, tokens: int = tokens, firsts: list[float] = firsts) -> None:
            began = time.perf_counter()
            seen: list[float] = []
            body = {
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
            }
            server.handle_chat_completions(body, lambda chunk: _note(chunk, began, seen))
            firsts.append(seen[0])

        started = time.perf_counter()
        workers = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        pipe.send((time.perf_counter() - started, tokens * len(prompts), statistics.median(firsts)))


def _note(chunk: Any, began: float, seen: list[float]) -> bool:
    """Keep when the first text came."""
    if not seen:
        parts = chunk if isinstance(chunk, list) else [chunk]
        for part in parts:
            for choice in part.get("choices") or ():
                if (choice.get("delta") or {}).get("content"):
                    seen.append(time.perf_counter() - began)
    return False


async def ours(llm: ByzerLLM, prompts: list[str], tokens: int) -> tuple[float, int, float]:
    """The same through the client."""
    config = {"max_length": tokens, "temperature": 0, "gen.ignore_eos": True}
    firsts: list[float] = []
    counts: list[int] = []

    async def ask(prompt: str) -> None:
        began, first, count = time.perf_counter(), 0.0, 0
        stream = llm.async_stream_chat_oai(prompt, llm_config=config, delta_mode=True)
        async for text, meta in stream:
            first = first or (time.perf_counter() - began if text else 0.0)
            count = meta.generated_tokens_count
        firsts.append(first)
        counts.append(count)

    started = time.perf_counter()
    await asyncio.gather(*map(ask, prompts))
    return time.perf_counter() - started, sum(counts), statistics.median(firsts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=96)
    options = parser.parse_args()
    threads = os.cpu_count() or 1
    path = str(models.path_or_pull("smollm2"))
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    context.Process(target=bare_engine, args=(theirs, path, threads), daemon=True).start()
    pipe.recv()
    llm = ByzerLLM().setup_default_model_name("bench")
    llm.deploy(path, "custom/auto", "bench", {"n_threads": threads})

    rows = []
    for count in (1, 8):
        speeds: dict[str, list[float]] = {"bare": [], "byzerllm": []}
        warm: dict[str, list[float]] = {"bare": [], "byzerllm": []}
        for turn in range(options.pairs + 1):
            prompts = [PROMPTS[(turn + place) % 8] for place in range(count)]
            jobs = ["bare", "byzerllm"] if turn % 2 else ["byzerllm", "bare"]
            for who in jobs:
                for again in (False, True):
                    tokens = 4 if again else options.tokens
                    if who == "bare":
                        pipe.send((prompts, tokens))
                        seconds, made, first = pipe.recv()
                    else:
                        seconds, made, first = asyncio.run(ours(llm, prompts, tokens))
                    if turn and again:
                        warm[who].append(first)
                    elif turn:
                        speeds[who].append(made / seconds)
        ratios = [a / b for a, b in zip(speeds["byzerllm"], speeds["bare"], strict=True)]
        for who in ("bare", "byzerllm"):
            rows.append(
                (
                    f"{who}, {count} at once",
                    f"{statistics.median(speeds[who]):.1f}",
                    f"{statistics.median(warm[who]) * 1000:.1f}",
                    "" if who == "bare" else f"{statistics.median(ratios) * 100:.1f} %",
                )
            )
    pipe.send(None)
    llm.undeploy("bench")
    show(("", "tokens/s", "first token, warm, ms", "of bare (median of pairs)"), rows)


if __name__ == "__main__":
    main()
