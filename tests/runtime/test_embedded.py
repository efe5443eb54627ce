"""Deployments in this process: workers, balance, pins, many callers, no leaks."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from byzerllm import ByzerLLM, portal
from byzerllm.errors import CallAborted, ConfigError, DeployError
from byzerllm.events import BeforeModel
from byzerllm.runtime.choose import choose
from byzerllm.testing import ScriptedModel, llm_for

ASK = [{"role": "user", "content": "hi"}]


def workers_of(name: str) -> list[Any]:
    return [worker.engine for worker in choose(None).deployment(name).workers]  # type: ignore[attr-defined]


class Counting(ScriptedModel):
    """Answers with nothing; each worker has one of its own."""

    def __init__(self) -> None:
        super().__init__("x")


@pytest.mark.parametrize("balance", ["lru", "round_robin", "least_loaded"])
def test_calls_are_spread_over_the_workers(balance: str) -> None:
    llm = ByzerLLM().setup_num_workers(3).setup_load_balance_way(balance)
    llm.deploy("", Counting, "spread")
    try:
        for _ in range(9):
            llm.chat_oai(ASK, model="spread")
        assert [len(engine.requests) for engine in workers_of("spread")] == [3, 3, 3]
    finally:
        llm.undeploy("spread")


def test_kinds_of_request_can_be_pinned_to_a_worker() -> None:
    asked: list[tuple[str, int]] = []

    class Noting(Counting):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            self.number = Noting.made
            Noting.made += 1

        async def embed(self, texts: Any, params: Any) -> Any:
            asked.append(("embed", self.number))
            return await super().embed(texts, params)

        async def tokenize(self, text: str) -> Any:
            asked.append(("tokenize", self.number))
            return await super().tokenize(text)

        async def rerank(self, pairs: Any, params: Any) -> Any:
            asked.append(("rerank", self.number))
            return await super().rerank(pairs, params)

        async def render_chat(self, messages: Any) -> Any:
            asked.append(("render_chat", self.number))
            return await super().render_chat(messages)

    llm = ByzerLLM().setup_num_workers(3)
    llm.deploy("", Noting, "pinned")
    llm.setup_pin_model_worker_mapping({"embedding": 2, "tokenizer": 1, "apply_chat_template": 0})
    try:
        for _ in range(4):
            llm.emb("pinned", "a")
            llm.tokenize("pinned", "a")
            llm.emb_rerank("pinned", ("a", "b"))
            llm.apply_chat_template("pinned", '[{"role": "user", "content": "a"}]')
    finally:
        llm.undeploy("pinned")
    assert set(asked) == {("embed", 2), ("tokenize", 1), ("rerank", 2), ("render_chat", 0)}


def test_a_worker_takes_no_more_calls_than_it_was_given() -> None:
    most = 0

    class Watching(ScriptedModel):
        async def stream(self, request: Any, sampling: Any) -> Any:
            nonlocal most
            async for item in super().stream(request, sampling):
                most = max(most, self.running)
                yield item

    llm = ByzerLLM().setup_worker_concurrency(3)
    llm.deploy("", Watching("a b c", delay=0.001), "narrow")

    async def main() -> None:
        await asyncio.gather(*(llm.async_chat_oai(ASK, model="narrow") for _ in range(30)))

    try:
        asyncio.run(main())
    finally:
        llm.undeploy("narrow")
    assert most == 3


def test_a_request_id_names_all_calls_that_were_sent_with_it() -> None:
    llm = llm_for(ScriptedModel("slow " * 1000, delay=0.01))
    config = {"gen.request_id": "same"}
    streams = [llm.stream_chat_oai(ASK, llm_config=config) for _ in range(2)]
    for stream in streams:
        next(stream)
    llm._query("", [{"instruction": "", "gen.abort": True, "gen.request_id": "same"}])
    for stream in streams:
        with pytest.raises(CallAborted):
            list(stream)
    again = {**config, "max_length": 1}
    assert llm.chat_oai(ASK, llm_config=again)[0].metadata["request_id"] == "same"


def test_replacing_a_model_lets_calls_in_flight_end() -> None:
    first = ScriptedModel("one two three", delay=0.05)
    llm = llm_for(first)
    name = llm.default_model_name or ""
    stream = llm.stream_chat_oai(ASK)
    next(stream)
    llm.deploy("", ScriptedModel("new"), name, replace=True)
    assert llm.chat_oai(ASK)[0].output == "new"
    assert list(stream)[-1][0] == "one two three"
    for _ in range(200):
        if first.closed:
            break
        threading.Event().wait(0.01)
    assert first.closed


def test_one_engine_object_is_one_worker() -> None:
    with pytest.raises(ConfigError, match="one worker"):
        ByzerLLM().setup_num_workers(2).deploy("", ScriptedModel(), "twice")
    assert not ByzerLLM().is_model_exist("twice")


def test_a_worker_that_cannot_be_made_closes_those_that_were() -> None:
    made: list[ScriptedModel] = []

    class SecondFails(ScriptedModel):
        def __init__(self) -> None:
            if made:
                raise OSError("no room for a second")
            super().__init__()
            made.append(self)

    with pytest.raises(DeployError, match="no room for a second"):
        ByzerLLM().setup_num_workers(2).deploy("", SecondFails, "half")
    assert made[0].closed


@pytest.mark.parametrize("problem", [SystemExit(3), KeyboardInterrupt()])
def test_nothing_that_a_handler_raises_ends_the_background_loop(problem: BaseException) -> None:
    llm = llm_for(ScriptedModel("x"))

    @llm.on.before_model
    async def leave(event: BeforeModel) -> None:
        raise problem

    with pytest.raises(type(problem)):
        llm.chat_oai(ASK)
    leave.remove()
    assert llm.chat_oai(ASK)[0].output == "x"


def test_a_plain_stream_on_the_background_loop_is_an_error_and_not_a_hang() -> None:
    llm = llm_for(ScriptedModel("x"))

    async def wrong() -> None:
        # As a handler would that does not know where it runs.
        source: portal.Feed[int] = portal.Feed(numbers)
        source.next()

    async def numbers() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(RuntimeError, match="async_ twin"):
        portal.run(wrong())
    assert llm.chat_oai(ASK)[0].output == "x"


def test_a_stream_that_dies_in_a_circle_of_references_gives_its_slot_back() -> None:
    llm = llm_for(ScriptedModel("slow " * 100_000, delay=0.001, concurrency=1))

    class Holder:
        pass

    holder: Any = Holder()
    holder.me = holder
    holder.stream = llm.stream_chat_oai(ASK, llm_config={"max_length": 1_000_000})
    next(holder.stream)
    del holder
    gc.collect()
    assert llm.chat_oai(ASK, llm_config={"max_length": 1, "timeout_s": 5})[0].output


def threads_and_files() -> tuple[int, int]:
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_a_thousand_calls_and_two_hundred_streams_at_once_leave_nothing_behind() -> None:
    llm = llm_for(ScriptedModel("one two three", delay=0.001))
    llm.chat_oai(ASK)

    async def stream() -> str:
        last = ""
        async for text, _ in llm.async_stream_chat_oai(ASK):
            last = text
        return last

    async def main() -> list[Any]:
        calls = [llm.async_chat_oai(ASK) for _ in range(1000)]
        answers = await asyncio.gather(*calls, *(stream() for _ in range(200)))
        assert len(asyncio.all_tasks()) == 1
        return answers

    before = threads_and_files()
    answers = asyncio.run(main())
    assert len(answers) == 1200
    texts = {answer if isinstance(answer, str) else answer[0].output for answer in answers}
    assert texts == {"one two three"}
    assert threads_and_files() == before
    deployment = choose(None).deployment(llm.default_model_name or "")  # type: ignore[attr-defined]
    assert (deployment.pool.in_use, deployment.pool.waiting, deployment.running) == (0, 0, 0)


def test_plain_threads_can_stream_at_once() -> None:
    llm = llm_for(ScriptedModel("one two three", delay=0.001))
    results: list[str] = []

    def read() -> None:
        results.append([text for text, _ in llm.stream_chat_oai(ASK)][-1])

    threads = [threading.Thread(target=read) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["one two three"] * 50


def test_a_stream_that_nobody_reads_any_more_gives_its_slot_back() -> None:
    llm = llm_for(ScriptedModel("slow " * 1000, delay=0.001, concurrency=1))
    stream = llm.stream_chat_oai(ASK)
    next(stream)
    del stream
    gc.collect()
    assert llm.chat_oai(ASK, llm_config={"max_length": 1, "timeout_s": 5})[0].output


def test_a_loop_that_ends_with_an_open_stream_gives_its_slot_back() -> None:
    model = ScriptedModel("slow " * 1000, delay=0.001, concurrency=1)
    llm = llm_for(model)
    kept: list[Any] = []

    async def leave() -> None:
        stream = llm.async_stream_chat_oai(ASK)
        kept.append(stream)
        await stream.__anext__()

    asyncio.run(leave())
    assert llm.chat_oai(ASK, llm_config={"max_length": 1, "timeout_s": 5})[0].output


def test_a_slow_reader_slows_the_source() -> None:
    model = ScriptedModel([["x"] * 100_000])
    llm = llm_for(model)
    config = {"max_length": 1_000_000}
    stream = llm.stream_chat_oai(ASK, llm_config=config, delta_mode=True)
    for _ in range(2000):
        next(stream)
    assert model.running == 1  # far from its end: nothing reads ahead without bound
    stream.close()
    assert model.running == 0


def test_a_plain_call_on_the_background_loop_is_an_error_and_not_a_hang() -> None:
    llm = llm_for(ScriptedModel("x"))

    async def wrong() -> None:
        llm.chat_oai(ASK)

    with pytest.raises(RuntimeError, match="async_ twin"):
        portal.run(wrong())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is nothing to fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_call_whatever_the_parent_is_doing() -> None:
    llm = llm_for(ScriptedModel(lambda request: ["x"] * 100, delay=0.01, concurrency=1))
    busy = llm.stream_chat_oai(ASK)
    next(busy)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            config = {"max_length": 1, "timeout_s": 20}
            code = 0 if llm.chat_oai(ASK, llm_config=config)[0].output == "x" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    busy.close()
