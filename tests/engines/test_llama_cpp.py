"""llama.cpp with the real model: true answers, many at once, cancelled anywhere, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from byzerllm import ByzerLLM
from byzerllm.errors import (
    CallAborted,
    CallTimeout,
    ConfigError,
    EngineDied,
    LengthError,
    ModelFileError,
    Unsupported,
)
from byzerllm.events import Progress
from byzerllm.runtime.choose import choose
from byzerllm.templates import Templates, render_conversation
from byzerllm.types import InferBackend

GERMANY = [{"role": "user", "content": "Name the capital of Germany."}]
LONG_ANSWER = {"gen.ignore_eos": True, "max_length": 4000, "temperature": 0}
SHORT = {"max_length": 4, "temperature": 0}


@pytest.fixture(scope="module")
def llm(smollm2: Path) -> Iterator[ByzerLLM]:
    llm = ByzerLLM().setup_default_model_name("smol").setup_default_emb_model_name("smol")
    llm.deploy(str(smollm2), "custom/auto", "smol", {"n_parallel": "4"})
    yield llm
    llm.undeploy("smol")


def engine_of(name: str) -> Any:
    return choose(None).deployment(name).workers[0].engine  # type: ignore[attr-defined]


def running(name: str = "smol") -> int:
    return int(choose(None).deployment(name).pool.in_use)  # type: ignore[attr-defined]


def unique(text: str, _count: list[int] = [0]) -> list[dict[str, str]]:  # noqa: B006
    """A conversation that no prompt cache knows."""
    _count[0] += 1
    return [{"role": "user", "content": f"{_count[0]} {text}"}]


LONG_PROMPT = "The quick brown fox jumps over the lazy dog again. " * 120


# -- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Name the capital of Germany.", "Berlin"),
        ("What is the capital city of France? Answer in one sentence.", "Paris"),
        ("What is 2+2?", "4"),
    ],
)
def test_it_answers_rightly(llm: ByzerLLM, question: str, answer: str) -> None:
    response = llm.chat_oai(question, llm_config={"temperature": 0, "max_length": 40})[0]
    assert answer in response.output
    assert response.metadata["finish_reason"] == "stop"
    assert response.metadata["input_tokens_count"] > 10
    assert response.metadata["generated_tokens_count"] > 1


def test_local_deploys_the_bundled_model_with_nothing_to_set_up(smollm2: Path) -> None:
    llm = ByzerLLM.local()
    assert "Berlin" in llm.chat_oai(GERMANY, llm_config={"temperature": 0})[0].output
    again = ByzerLLM.local()  # the same deployment serves all clients
    assert again.default_model_name == "smollm2"
    llm.undeploy("smollm2")


def test_streams_and_async_calls_say_the_same(llm: ByzerLLM) -> None:
    config = {"temperature": 0, "max_length": 20}
    whole = llm.chat_oai(GERMANY, llm_config=config)[0].output
    texts = [text for text, _ in llm.stream_chat_oai(GERMANY, llm_config=config)]
    assert texts[-1] == whole
    assert len(texts) > 5

    async def ask() -> tuple[str, str]:
        pieces = llm.async_stream_chat_oai(GERMANY, llm_config=config, delta_mode=True)
        streamed = "".join([text async for text, _ in pieces])
        return str((await llm.async_chat_oai(GERMANY, llm_config=config))[0].output), streamed

    assert asyncio.run(ask()) == (whole, whole)


def test_eight_callers_at_once_share_four_slots(llm: ByzerLLM) -> None:
    async def main() -> list[str]:
        calls = [llm.async_chat_oai(GERMANY, llm_config={"temperature": 0}) for _ in range(8)]
        return [str(responses[0].output) for responses in await asyncio.gather(*calls)]

    assert all("Berlin" in answer for answer in asyncio.run(main()))
    assert running() == 0


def test_meta_tells_what_it_is(llm: ByzerLLM) -> None:
    meta = llm.get_meta("smol")
    assert meta["backend"] == "llama_cpp"
    assert meta["model_deploy_type"] == "proprietary"
    assert (meta["message_format"], meta["support_chat_template"]) == (True, True)
    assert meta["max_model_len"] == 8192
    assert meta["architectures"] == ["llama"]


def test_the_budget_counts_new_tokens_and_zero_is_refused(llm: ByzerLLM) -> None:
    response = llm.chat_oai(GERMANY, llm_config={"max_length": 3, "temperature": 0})[0]
    assert response.metadata["generated_tokens_count"] == 3
    assert response.metadata["finish_reason"] == "length"
    with pytest.raises(ConfigError, match="at least 1"):
        llm.chat_oai(GERMANY, llm_config={"max_length": 0})


def test_settings_reach_it(llm: ByzerLLM) -> None:
    config = {"temperature": 1.0, "gen.seed": 7, "max_length": 12, "gen.top_k": 40}
    first, second = (llm.chat_oai("Tell me a story.", llm_config=config)[0] for _ in range(2))
    assert first.output == second.output
    stopped = llm.chat_oai(GERMANY, llm_config={"temperature": 0, "gen.stop": "Berlin"})[0]
    assert stopped.output == "The capital of Germany is "
    prefix = {"temperature": 0, "gen.response_prefix": "In German it is called"}
    assert llm.chat_oai(GERMANY, llm_config=prefix)[0].output.startswith("In German it is called")
    continued = [*GERMANY, {"role": "assistant", "content": "The capital of Germany is"}]
    assert llm.chat_oai(continued, llm_config={"temperature": 0})[0].output.startswith(" Berlin")


def test_what_it_does_not_know_is_refused_and_not_ignored(llm: ByzerLLM) -> None:
    with pytest.raises(Unsupported, match="'no_such_setting'"):
        llm.chat_oai(GERMANY, llm_config={"gen.no_such_setting": 1})
    with pytest.raises(ConfigError, match="no role 'function'"):
        llm.chat_oai([{"role": "function", "content": "x"}])
    with pytest.raises(ConfigError, match="'no_such_key'"):
        ByzerLLM().deploy("/x.gguf", "custom/auto", "x", {"no_such_key": 1})


# -- templates --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "conversation",
    [
        [("system", "S"), ("user", "U1"), ("assistant", "A1"), ("user", "U2")],
        [("system", "Be kind.\n"), ("user", "{braces} and <|odd|> marks")],
        [("system", "S"), ("user", "U1"), ("assistant", "The answer is")],
    ],
)
def test_our_chatml_is_the_models_own_template(
    llm: ByzerLLM, conversation: list[tuple[str, str]]
) -> None:
    messages = [{"role": role, "content": content} for role, content in conversation]
    own = engine_render(messages)
    for template in (Templates.qwen(), Templates.yi()):
        assert render_conversation(messages, template.role_mapping) == own


def engine_render(messages: list[dict[str, str]]) -> str:
    import json

    return ByzerLLM().apply_chat_template("smol", json.dumps(messages))


def test_as_a_text_model_it_takes_templates_and_answers_rightly(smollm2: Path) -> None:
    llm = ByzerLLM().setup_infer_backend(InferBackend.LLAMA_CPP)
    llm.deploy(str(smollm2), "custom/auto", "text", {"backend.message_format": "false"})
    llm.setup_default_model_name("text")
    try:
        assert llm.get_meta("text")["message_format"] is False
        llm.setup_template("text", "auto")
        assert "Berlin" in llm.chat_oai(GERMANY, llm_config={"temperature": 0})[0].output
        template = Templates.yi()
        template.generation_config = {}  # Yi's stop token means something else here
        llm.setup_template("text", template)
        assert "Berlin" in llm.chat_oai(GERMANY, llm_config={"temperature": 0})[0].output
        raw = llm.chat("text", "The capital of Germany is", {"temperature": 0, "max_length": 5})
        assert raw[0].output
    finally:
        llm.undeploy("text")


# -- tokens, vectors, scores ------------------------------------------------------------------


def test_tokens_and_lengths_are_the_models_own(llm: ByzerLLM) -> None:
    ids = llm.tokenize("smol", "Hello world")[0].output[0]
    assert ids == [19556, 905]
    assert asyncio.run(engine_of("smol").detokenize(ids)) == "Hello world"
    short = ByzerLLM().setup_default_model_name("smol").setup_max_input_length("smol", 5)
    with pytest.raises(ValueError, match=r"takes 5"):
        short.chat_oai(GERMANY)


def test_vectors_have_a_meaning(llm: ByzerLLM) -> None:
    texts = ["A cat sat on the mat.", "A kitten lay on the rug.", "Stock prices fell sharply."]
    cat, kitten, stocks = (response.output for response in llm.emb("smol", texts))
    assert len(cat) == 576

    def near(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert near(cat, cat) == pytest.approx(1, abs=1e-3)
    assert near(cat, kitten) > near(cat, stocks)
    assert llm.emb_query(texts[0])[0].output == pytest.approx(cat, abs=1e-2)


def test_a_chat_model_is_no_reranker_and_says_so(llm: ByzerLLM, smollm2: Path) -> None:
    with pytest.raises(Unsupported, match="reranker"):
        llm.emb_rerank("smol", ("a", "b"))
    with pytest.raises(ConfigError, match="no classifier"):
        ByzerLLM().deploy(str(smollm2), "custom/auto", "rank", {"backend.pooling": "rank"})


# -- progress and cancellation ----------------------------------------------------------------


def test_reading_a_long_prompt_is_told_as_an_event(llm: ByzerLLM) -> None:
    seen: list[Progress] = []
    subscription = llm.on.progress(seen.append)
    try:
        for _ in llm.stream_chat_oai(unique(LONG_PROMPT), llm_config=SHORT):
            pass
    finally:
        subscription.remove()
    assert len(seen) > 3
    assert [event.done for event in seen] == sorted(event.done for event in seen)
    assert seen[-1].done == seen[-1].total > 1200


def free_within(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running() == 0
    started = time.monotonic()
    ByzerLLM().chat_oai(GERMANY, model="smol", llm_config={**SHORT, "timeout_s": 30})
    assert time.monotonic() - started < 20


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, failures


def test_cancelled_in_the_middle_of_a_stream(llm: ByzerLLM) -> None:
    stream = llm.stream_chat_oai(unique("Tell a story."), llm_config=LONG_ANSWER)
    for _ in range(5):
        next(stream)
    stream.close()
    free_within(2)


def test_cancelled_at_the_first_token(llm: ByzerLLM) -> None:
    stream = llm.stream_chat_oai(unique("Tell a story."), llm_config=LONG_ANSWER)
    next(stream)
    stream.close()
    free_within(2)


def test_cancelled_while_it_reads_the_prompt(llm: ByzerLLM) -> None:
    reading = threading.Event()
    subscription = llm.on.progress(lambda event: reading.set())
    config = {**LONG_ANSWER, "gen.request_id": "reading"}
    thread, failures = in_background(
        lambda: list(llm.stream_chat_oai(unique(LONG_PROMPT), llm_config=config))
    )
    assert reading.wait(30)
    assert llm.abort("reading", "smol")
    thread.join(10)
    subscription.remove()
    assert isinstance(failures[0], CallAborted)
    free_within(2)


def test_cancelled_in_a_plain_call(llm: ByzerLLM) -> None:
    with pytest.raises(CallTimeout):
        llm.chat_oai(unique("Tell a story."), llm_config={**LONG_ANSWER, "timeout_s": 0.5})
    free_within(2)


def test_cancelled_while_it_waits_for_a_slot(llm: ByzerLLM) -> None:
    busy = [llm.stream_chat_oai(unique("Tell a story."), llm_config=LONG_ANSWER) for _ in range(4)]
    for stream in busy:
        next(stream)
    config = {**SHORT, "gen.request_id": "queued"}
    thread, failures = in_background(lambda: llm.chat_oai(GERMANY, llm_config=config))
    while choose(None).deployment("smol").pool.waiting == 0:  # type: ignore[attr-defined]
        time.sleep(0.01)
    assert llm.abort("queued", "smol")
    thread.join(5)
    assert isinstance(failures[0], CallAborted)
    for stream in busy:
        stream.close()
    free_within(2)


def test_an_async_caller_that_is_cancelled_stops_the_model(llm: ByzerLLM) -> None:
    async def main() -> None:
        call = asyncio.ensure_future(llm.async_chat_oai(unique("Story."), llm_config=LONG_ANSWER))
        await asyncio.sleep(0.5)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

    asyncio.run(main())
    free_within(2)


# -- deaths -----------------------------------------------------------------------------------


def test_a_killed_engine_comes_back_and_the_call_is_tried_again(llm: ByzerLLM) -> None:
    os.kill(engine_of("smol").pid, signal.SIGKILL)
    assert "Berlin" in llm.chat_oai(GERMANY, llm_config={"temperature": 0})[0].output
    old = engine_of("smol").pid
    thread, failures = in_background(
        lambda: llm.chat_oai(unique("Count to ten."), llm_config={"max_length": 60})
    )
    while not running():
        time.sleep(0.001)
    os.kill(old, signal.SIGKILL)
    thread.join(60)
    assert failures == []
    assert engine_of("smol").pid != old


def test_a_stream_that_has_begun_is_not_begun_again(llm: ByzerLLM) -> None:
    stream = llm.stream_chat_oai(unique("Tell a story."), llm_config=LONG_ANSWER)
    next(stream)
    os.kill(engine_of("smol").pid, signal.SIGKILL)
    with pytest.raises(EngineDied, match="ended during the call"):
        for _ in stream:
            pass
    free_within(2)


def test_undeploying_ends_the_child(smollm2: Path) -> None:
    llm = ByzerLLM()
    llm.deploy(str(smollm2), "custom/auto", "short-lived")
    engine = engine_of("short-lived")
    pid, socket = engine.pid, engine._child.socket
    assert Path(socket).parent.stat().st_mode & 0o777 == 0o700
    llm.undeploy("short-lived")
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(socket).parent.exists()


@pytest.mark.parametrize("end", ["sys.exit()", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_the_child_ends_with_its_program_whatever_way(smollm2: Path, end: str) -> None:
    program = f"""
import os, sys
from byzerllm import ByzerLLM
from byzerllm.runtime.choose import choose
llm = ByzerLLM()
llm.deploy({str(smollm2)!r}, "custom/auto", "m")
print(choose(None).deployment("m").workers[0].engine.pid, flush=True)
{end}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    child = Path("/proc") / done.stdout.strip()
    deadline = time.monotonic() + 5
    while child.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not child.exists()


# -- files that are no models -----------------------------------------------------------------


def test_files_that_are_no_models_are_refused_with_the_reason(
    tmp_path: Path, smollm2: Path
) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    cut = tmp_path / "cut.gguf"
    with smollm2.open("rb") as whole:
        cut.write_bytes(whole.read(5_000_000))
    for path, said in [
        (tmp_path / "missing.gguf", "does not exist"),
        (text, "not a GGUF model"),
        (cut, "cut off"),
    ]:
        with pytest.raises(ModelFileError, match=said):
            ByzerLLM().deploy(str(path), "custom/auto", "bad")
    assert not ByzerLLM().is_model_exist("bad")


def test_a_model_llama_cpp_cannot_read_fails_with_what_it_printed(
    tmp_path: Path, smollm2: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    data = bytearray(smollm2.read_bytes())
    place = data.index(b"llama", data.index(b"general.architecture") + 20)
    data[place : place + 5] = b"lizrd"
    broken.write_bytes(data)
    with pytest.raises(Exception, match=r"did not start|lizrd"):
        ByzerLLM().deploy(str(broken), "custom/auto", "broken")
    assert not ByzerLLM().is_model_exist("broken")


def test_a_conversation_longer_than_the_context_says_both_numbers(llm: ByzerLLM) -> None:
    with pytest.raises(LengthError, match=r"has \d{4,} tokens, and the model reads 8192"):
        llm.chat_oai("word " * 9000, llm_config=SHORT)


def test_stop_ids_stop_and_those_of_other_models_do_not_matter(llm: ByzerLLM) -> None:
    (berlin,) = llm.tokenize("smol", " Berlin")[0].output[0]
    config = {"temperature": 0, "gen.stop_token_ids": [151643, berlin]}
    assert llm.chat_oai(GERMANY, llm_config=config)[0].output == "The capital of Germany is"
    other = ByzerLLM().setup_default_model_name("smol").setup_template("smol", Templates.qwen())
    assert "Berlin" in other.chat_oai(GERMANY, llm_config={"temperature": 0})[0].output


@pytest.mark.parametrize("value", ["abc", -5, 1 << 40])
def test_engine_settings_that_cannot_be_are_named(smollm2: Path, value: object) -> None:
    with pytest.raises(ConfigError, match="n_ctx"):
        ByzerLLM().deploy(str(smollm2), "custom/auto", "bad", {"n_ctx": value})
