"""Ctrl-C, as a program in a terminal gets it: nothing hangs and no slot is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

BEGIN = """
import sys, threading
from byzerllm.testing import ScriptedModel, llm_for
model = ScriptedModel("slow " * 100_000, delay=0.01, concurrency=1)
llm = llm_for(model)
config = {"max_length": 1_000_000}
"""
END = """
assert model.running == 0, model.running
print(llm.chat_oai("again", llm_config={"max_length": 1, "timeout_s": 5})[0].output, flush=True)
"""
PROGRAMS = {
    "plain call": """
        try:
            print("ready", flush=True)
            llm.chat_oai("hi", llm_config=config)
        except KeyboardInterrupt:
            threading.Event().wait(0.2)  # the model hears of it on the background loop
    """,
    "stream": """
        try:
            for number, _ in enumerate(llm.stream_chat_oai("hi", llm_config=config)):
                if number == 3:
                    print("ready", flush=True)
        except KeyboardInterrupt:
            pass
    """,
    "async stream": """
        import asyncio
        async def main():
            number = 0
            async for _ in llm.async_stream_chat_oai("hi", llm_config=config):
                number += 1
                if number == 3:
                    print("ready", flush=True)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            pass
    """,
    "question": """
        from byzerllm.human import ask_human
        from byzerllm.types import EventName
        llm.add_event_callback(EventName.BEFORE_CALL_MODEL, ask_human)
        try:
            print("ready", flush=True)
            llm.chat_oai("hi")
        except KeyboardInterrupt:
            llm.remove_event_callback(EventName.BEFORE_CALL_MODEL, ask_human)
    """,
    "async question": """
        import asyncio
        from byzerllm.human import ask_human
        from byzerllm.types import EventName
        llm.add_event_callback(EventName.BEFORE_CALL_MODEL, ask_human)
        try:
            print("ready", flush=True)
            asyncio.run(llm.async_chat_oai("hi"))
        except KeyboardInterrupt:
            llm.remove_event_callback(EventName.BEFORE_CALL_MODEL, ask_human)
    """,
    "async question, then another": """
        import asyncio
        from byzerllm.human import ask_human
        from byzerllm.types import EventName
        llm.add_event_callback(EventName.BEFORE_CALL_MODEL, ask_human)
        try:
            print("ready", flush=True)
            asyncio.run(llm.async_chat_oai("hi"))
        except KeyboardInterrupt:
            print("NEXT", flush=True)
        print(llm.chat_oai("second")[0].output, flush=True)
        print(asyncio.run(llm.async_chat_oai("third"))[0].output, flush=True)
        llm.remove_event_callback(EventName.BEFORE_CALL_MODEL, ask_human)
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_ends_the_call_and_the_program_goes_on(name: str) -> None:
    program = BEGIN + textwrap.dedent(PROGRAMS[name]) + END
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        check(process, name)


def check(process: subprocess.Popen[str], name: str) -> None:
    assert process.stdout is not None
    while "ready" not in process.stdout.readline():
        assert process.poll() is None, process.communicate()[1]
    if "question" in name:
        while not process.stdout.readline().startswith("history"):
            pass
    try:
        process.wait(0.3)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    if name.endswith("another"):
        assert process.stdin is not None
        while "NEXT" not in process.stdout.readline():
            pass
        process.stdin.write("typed second\ntyped third\n")
        process.stdin.flush()
    # Standard input stays open: a thread that reads it must not keep the program from ending.
    shown = process.stdout.read()
    assert process.wait(10) == 0, process.stderr and process.stderr.read()
    assert "slow" in shown
    if name.endswith("another"):
        assert "typed second\n" in shown
        assert "typed third\n" in shown
