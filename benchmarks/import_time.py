"""Time and memory of a fresh interpreter that imports a client, over one that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from table import show

CASES = {
    "(nothing)": "pass",
    "import asyncio": "import asyncio",
    "import byzerllm": "import byzerllm",
    "ByzerLLM()": "from byzerllm import ByzerLLM; ByzerLLM()",
    "import aiohttp": "import aiohttp",
    "openai.OpenAI()": "import openai; openai.OpenAI(api_key='x')",
}
MEMORY = "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    memory: dict[str, float] = {}
    for turn in range(12):
        for name, code in CASES.items():
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", code + MEMORY], check=True, capture_output=True, text=True
            )
            if turn:  # the first round fills the disk cache
                times[name].append(time.perf_counter() - started)
            memory[name] = int(done.stdout) / 1024
    nothing = statistics.median(times["(nothing)"])
    rows = [
        (
            name,
            f"{(statistics.median(found) - nothing) * 1000:.0f}",
            f"{memory[name] - memory['(nothing)']:.0f}",
        )
        for name, found in times.items()
    ]
    show(("program", "ms over nothing", "MB over nothing"), rows)


if __name__ == "__main__":
    main()
