"""What every hosted model must do, whoever provides it; a provider's own test says the rest."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import pickle
import pkgutil
import re
import socket
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from wire_server import (
    CLOSE,
    DONE,
    HANG,
    HEAD,
    WireServer,
    chat,
    chunk,
    completion,
    event,
    piece,
    says,
    stream,
    whole,
)

from byzerllm import ByzerLLM, saas
from byzerllm.errors import (
    ByzerError,
    CallAborted,
    CallTimeout,
    ConfigError,
    ProviderError,
    ProviderUnreachable,
    StreamError,
)
from byzerllm.types import LLMRequest

MODULES = {
    module.name: importlib.import_module(f"byzerllm.saas.{module.name}")
    for module in pkgutil.iter_modules(saas.__path__)
}
APIS = {
    name: module.CustomSaasAPI
    for name, module in sorted(MODULES.items())
    if hasattr(module, "CustomSaasAPI")
}
# A provider under two names is tested once.
PROVIDERS = [name for name, api in APIS.items() if api.__module__ == f"byzerllm.saas.{name}"]
KEY = "sk-very-secret-0123456789"
ASK = [{"role": "user", "content": "Name the capital of Germany."}]

Deploy = Callable[..., ByzerLLM]


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def deploy(provider: str, wire: WireServer) -> Iterator[Deploy]:
    """Deploy the provider with its address at the scripted server; ``slots``: calls at once."""
    clients = []

    def make(slots: int | None = None, **settings: Any) -> ByzerLLM:
        llm = ByzerLLM()
        if slots is not None:
            llm.setup_worker_concurrency(slots)
        name = f"{provider}-{len(clients)}"
        params = {"api_key": KEY, "base_url": wire.url, "model": "m", "max_retries": 0, **settings}
        given = {f"saas.{key}": value for key, value in params.items() if value is not None}
        llm.deploy("", f"saas/{provider}", name, given)
        clients.append((llm, name))
        llm.setup_default_model_name(name)
        llm.setup_default_emb_model_name(name)
        llm.setup_default_re_rank_model_name(name)
        return llm

    yield make
    for llm, name in clients:
        llm.undeploy(name)


def settles(condition: Callable[[], bool]) -> bool:
    """Whether this becomes true, soon."""
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def read_into(seen: list[str], llm: ByzerLLM) -> None:
    """Read a stream; what came before it broke is in ``seen``."""
    for text, _ in llm.stream_chat_oai(ASK):
        seen.append(text)


# -- deploying ----------------------------------------------------------------------------------


def test_deploying_asks_only_for_the_list_of_models(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()

    assert [check.path for check in wire.checks] == ["/v1/models"]
    assert wire.checks[0].headers["authorization"] == f"Bearer {KEY}"
    assert wire.requests == []
    meta = llm.get_meta("")
    assert (meta["model_deploy_type"], meta["backend"], meta["model_name"]) == ("saas", "saas", "m")
    assert meta["support_stream"] is True and meta["embedding_mode"] is False


def test_a_missing_key_is_named(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)

    with pytest.raises(ConfigError, match=r"saas\.api_key.*environment variable \w+_API_KEY"):
        deploy(api_key=None)


def test_a_key_comes_from_the_environment(
    deploy: Deploy, provider: str, wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(APIS[provider].api_key_env, "sk-of-the-environment\n")

    deploy(api_key=None)

    assert wire.checks[0].headers["authorization"] == "Bearer sk-of-the-environment"


@pytest.mark.parametrize("key", ["saas.colour", "backend.n_ctx", "n_ctx"])
def test_an_unknown_setting_is_refused(provider: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"does not know '{key}'; it knows .*saas\.api_key"):
        ByzerLLM().deploy("", f"saas/{provider}", "never", {"saas.api_key": KEY, key: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", "soon"),
        ("timeout", -1),
        ("max_retries", "many"),
        ("max_retries", -1),
        ("https_verify", "perhaps"),
        ("stream_usage", "perhaps"),
        ("headers", "{"),
        ("headers", ["a"]),
        ("headers", {"a": "b\r\nEvil: yes"}),
        ("proxies", "proxy:8080"),
        ("proxies", {"http": "socks5://127.0.0.1:1"}),
        ("api_type", "azure"),
        ("api_key", "two words"),
        ("api_key", "schlüssel"),
        ("base_url", "api.example.com"),
        ("base_url", "ftp://127.0.0.1/"),
        ("base_url", "http:///v1"),
        ("base_url", "http://127.0.0.1:port/v1"),
        ("base_url", "http://127.0.0.1:80 /v1"),
        ("base_url", "http://127.0.0.1:99999/v1"),
        ("base_url", "http://127.0.0.1/v1#part"),
        ("base_url", f"http://{'a' * 70}.invalid/v1"),
        ("base_url", "http://me:password@127.0.0.1/v1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(deploy: Deploy, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"saas\.{name}") as caught:
        deploy(**{name: value})

    assert "password" not in str(caught.value).replace("user or password", "")


def refused(deploy: Deploy, wire: WireServer, answer: Any) -> ByzerError:
    wire.always(answer, path="/models")
    with pytest.raises(ByzerError) as caught:
        deploy()
    return caught.value


def test_deploying_with_a_wrong_key_says_so(deploy: Deploy, wire: WireServer) -> None:
    error = refused(deploy, wire, whole({"error": {"message": "Incorrect API key"}}, 401))

    assert isinstance(error, ProviderError) and error.status == 401
    assert "Incorrect API key. Check infer_params={'saas.api_key': …}" in str(error)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (whole(b"<html>Welcome</html>", kind="text/html"), "not JSON.*Welcome.*base_url"),
        (whole(b""), "not JSON.*base_url"),
        (whole({"hello": "world"}), "models with .*hello.*base_url"),
        (whole(b"", 301, Location="http://127.0.0.1/other"), "301.*127.0.0.1/other.*base_url"),
        ([b"220 mail.example.com ESMTP\r\n", CLOSE], "does not speak HTTP"),
        ([CLOSE], "closed the connection without an answer"),
        (whole({"error": "down"}, 503), "503: down"),
    ],
)
def test_deploying_to_what_is_no_provider_says_so(
    deploy: Deploy, wire: WireServer, answer: Any, said: str
) -> None:
    error = refused(deploy, wire, answer)

    assert re.search(said, str(error)), str(error)


def test_deploying_to_a_dead_address_says_so(deploy: Deploy) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    with pytest.raises(ProviderUnreachable, match=rf"127\.0\.0\.1:{port}.*saas\.base_url"):
        deploy(base_url=f"http://127.0.0.1:{port}/v1")
    with pytest.raises(ProviderUnreachable, match=r"nowhere\.invalid.*saas\.base_url"):
        deploy(base_url="http://nowhere.invalid/v1")


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_a_provider_without_a_list_of_models_is_deployed(
    deploy: Deploy, wire: WireServer, status: int
) -> None:
    wire.always(whole({"error": "what list?"}, status), path="/models")

    assert deploy().chat_oai(ASK)[0].output == "echo Name the capital of Germany."


def test_a_bare_list_of_models_will_do(deploy: Deploy, wire: WireServer) -> None:
    wire.always(whole([{"id": "m"}]), path="/models")

    assert deploy().chat_oai("hi")[0].output == "echo hi"


def test_the_check_can_be_left_out(deploy: Deploy, wire: WireServer) -> None:
    deploy(check="false")

    assert wire.checks == []


# -- calls --------------------------------------------------------------------------------------


def test_a_chat_sends_the_conversation_and_returns_the_text(
    deploy: Deploy, wire: WireServer
) -> None:
    llm = deploy()

    answer = llm.chat_oai(ASK, llm_config={"max_length": 50, "gen.stop": "\n"})[0]

    assert answer.output == "echo Name the capital of Germany."
    (request,) = wire.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["content-type"] == "application/json"
    assert request.json == {"model": "m", "messages": ASK, "max_tokens": 50, "stop": ["\n"]}
    assert answer.metadata["input_tokens_count"] == 12
    assert answer.metadata["generated_tokens_count"] == 3
    assert answer.metadata["finish_reason"] == "stop"
    assert answer.metadata["request_id"] == "chatcmpl-7"


def test_reasoning_comes_beside_the_text(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()
    wire.will(
        chat("Berlin.", reasoning_content="Germany, so"),
        stream(
            piece(reasoning_content="Germany, "),
            piece(reasoning_content="so"),
            piece("Berlin."),
            piece(finish="stop"),
            DONE,
        ),
    )

    assert llm.chat_oai(ASK)[0].metadata["reasoning_content"] == "Germany, so"
    pairs = list(llm.stream_chat_oai(ASK, delta_mode=True))

    assert "".join(text for text, _ in pairs) == "Berlin."
    assert "".join(meta.reasoning_content for _, meta in pairs) == "Germany, so"


def test_every_alphabet_goes_there_and_back(deploy: Deploy) -> None:
    llm = deploy()
    text = 'Ünïcödé 漢字 🙂👩‍👩‍👧 \u2028 \x00 \\ " עברית'

    assert llm.chat_oai(text)[0].output == f"echo {text}"
    assert [text for text, _ in llm.stream_chat_oai(text)][-1] == f"echo {text}"


def test_further_choices_come_in_the_metadata(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()
    body = completion("first")
    body["choices"].insert(0, {"index": 1, "message": {"content": "second"}})
    wire.will(whole(body))

    answer = llm.chat_oai(ASK, llm_config={"gen.n": 2})[0]

    assert wire.requests[0].json["n"] == 2
    assert answer.output == "first"
    assert [choice["output"] for choice in answer.metadata["choices"]] == ["first", "second"]


def test_a_stream_comes_in_order_and_cumulative(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()
    wire.will(says("Ber", "lin", " is", " it."))

    pairs = list(llm.stream_chat_oai(ASK))

    assert [text for text, _ in pairs] == ["Ber", "Berlin", "Berlin is", "Berlin is it."]
    assert pairs[-1][1].finish_reason == "stop"
    assert (pairs[-1][1].input_tokens_count, pairs[-1][1].generated_tokens_count) == (12, 3)
    assert wire.requests[0].json["stream"] is True
    assert wire.requests[0].json["stream_options"] == {"include_usage": True}


def test_a_stream_in_pieces_adds_up(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()
    wire.will(says("Ber", "lin", " is", " it."))

    pairs = list(llm.stream_chat_oai(ASK, delta_mode=True))

    assert [text for text, _ in pairs if text] == ["Ber", "lin", " is", " it."]
    assert pairs[-1][1].generated_tokens_count == 3


def test_pieces_arrive_while_the_stream_runs(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()
    wire.will([HEAD, chunk(piece("first")), HANG])

    pieces = llm.stream_chat_oai(ASK)

    assert next(pieces)[0] == "first"
    pieces.close()  # type: ignore[attr-defined]


def test_token_counts_of_streams_can_be_left_out(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy(stream_usage=False)
    wire.will(stream(piece("a"), piece(finish="stop"), DONE))

    list(llm.stream_chat_oai(ASK))

    assert "stream_options" not in wire.requests[0].json


def test_async_twins_do_the_same(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()

    async def all_of_them() -> list[Any]:
        return [
            (await llm.async_chat_oai("hi"))[0].output,
            (await llm.async_chat("", LLMRequest("hi")))[0].output,
            [text async for text, _ in llm.async_stream_chat_oai("hi")],
            [text async for text, _ in llm.async_stream_chat_oai("hi", delta_mode=True) if text],
            [row.output for row in await llm.async_emb("", ["a", "abc"])],
            (await llm.async_emb_rerank("", [("q", "long"), ("q", "x")]))[0].output,
        ]

    assert asyncio.run(all_of_them()) == [
        "echo hi",
        "echo hi",
        ["echo ", "echo h", "echo hi"],
        ["echo ", "h", "i"],
        [[1.0, 0.5], [3.0, 0.5]],
        [[("q", "x"), 0.5], [("q", "long"), 0.2]],
    ]


def test_vectors_come_in_the_order_of_their_texts(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()

    rows = llm.emb("", LLMRequest(["a", "abc", "ab"]), {"dimensions": 2})

    assert [row.output for row in rows] == [[1.0, 0.5], [3.0, 0.5], [2.0, 0.5]]
    assert wire.requests[0].json == {"model": "m", "input": ["a", "abc", "ab"], "dimensions": 2}
    assert rows[0].metadata["input_tokens_count"] == 7


def test_pairs_come_best_first_and_know_their_places(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()
    pairs = [("q", "long"), ("other", "xx"), ("q", "x")]

    answer = llm.emb_rerank("", pairs)[0]

    assert [pair for pair, _ in answer.output] == [("q", "x"), ("other", "xx"), ("q", "long")]
    assert answer.metadata["indices"] == [2, 1, 0]
    assert [request.json["documents"] for request in wire.requests] == [["long", "x"], ["xx"]]


# -- retries ------------------------------------------------------------------------------------


def busy(after: str) -> bytes:
    return whole({"error": {"message": "slow down", "code": "rate"}}, 429, Retry_After=after)


@pytest.mark.parametrize("after", ["0", "0.01", formatdate(0, usegmt=True)])
def test_a_busy_provider_is_asked_again_after_the_time_it_names(
    deploy: Deploy, wire: WireServer, after: str
) -> None:
    llm = deploy(max_retries=3)
    wire.will(busy(after), busy(after))

    assert llm.chat_oai("hi")[0].output == "echo hi"
    assert len(wire.requests) == 3


def test_a_busy_provider_is_asked_again_only_so_often(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy(max_retries=2)
    wire.always(busy("0"))

    with pytest.raises(ProviderError, match="429: slow down") as whole_reply:
        llm.chat_oai(ASK)
    with pytest.raises(ProviderError, match="429: slow down"):
        list(llm.stream_chat_oai(ASK))

    assert (whole_reply.value.status, whole_reply.value.code) == (429, "rate")
    assert len(wire.requests) == 6


def test_a_used_up_account_is_not_asked_again(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy(max_retries=5)
    wire.always(whole({"error": {"message": "pay first", "code": "insufficient_quota"}}, 429))

    with pytest.raises(ProviderError, match="pay first"):
        llm.chat_oai(ASK)

    assert len(wire.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_final_and_tells_what_the_provider_said(
    deploy: Deploy, wire: WireServer, status: int
) -> None:
    llm = deploy(max_retries=5)
    answer = whole({"error": {"message": "no such thing"}}, status, X_Request_Id="req-9")
    wire.always(answer)

    for call in (llm.chat_oai, lambda ask: list(llm.stream_chat_oai(ask))):
        with pytest.raises(ProviderError, match=f"{status}: no such thing") as caught:
            call(ASK)
        assert (caught.value.status, caught.value.request_id) == (status, "req-9")
    assert len(wire.requests) == 2


def test_a_connection_lost_before_any_text_is_tried_again(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy(max_retries=1)
    wire.will([CLOSE])
    assert llm.chat_oai("hi")[0].output == "echo hi"
    wire.will([HEAD, CLOSE])
    assert [text for text, _ in llm.stream_chat_oai("hi")][-1] == "echo hi"


# -- time-outs and broken streams ---------------------------------------------------------------


@pytest.mark.parametrize("begun", [[], [HEAD], [b"HTTP/1.1 200 OK\r\nContent-Le"]])
def test_a_silent_provider_is_given_up_after_its_time_out(
    deploy: Deploy, wire: WireServer, begun: list[Any]
) -> None:
    llm = deploy(timeout=0.08)
    wire.always([*begun, HANG])

    with pytest.raises(CallTimeout, match=r"0\.08 s.*saas\.timeout"):
        llm.chat_oai(ASK)
    with pytest.raises(CallTimeout, match=r"0\.08 s.*saas\.timeout"):
        list(llm.stream_chat_oai(ASK))

    assert all(request.left.wait(5) for request in wire.requests)


def test_a_long_stream_outlives_the_time_out_while_it_speaks(
    deploy: Deploy, wire: WireServer
) -> None:
    llm = deploy(timeout=0.2)
    slow = [part for number in range(8) for part in (piece(str(number)), 0.04)]
    wire.will(stream(*slow, piece(finish="stop"), DONE))

    assert [text for text, _ in llm.stream_chat_oai(ASK)][-1] == "01234567"


def test_a_provider_that_keeps_the_line_warm_may_take_its_time(
    deploy: Deploy, wire: WireServer
) -> None:
    llm = deploy(timeout=0.2)
    # DeepSeek sends empty lines while a request waits for its turn.
    body = chat("at last")
    head, _, rest = body.partition(b"\r\n\r\n")
    head = re.sub(rb"Length: \d+", b"Length: %d" % (len(rest) + 8), head)
    waits = [part for _ in range(8) for part in (b"\n", 0.04)]
    wire.will([head + b"\r\n\r\n", *waits, rest])

    assert llm.chat_oai(ASK)[0].output == "at last"


def test_a_call_ends_with_its_own_deadline(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy(slots=1)
    wire.will([HANG], [HEAD, chunk(piece("a")), HANG])

    with pytest.raises(CallTimeout, match=r"0\.08 s"):
        llm.chat_oai(ASK, llm_config={"timeout_s": 0.08})
    with pytest.raises(CallTimeout, match=r"0\.08 s"):
        list(llm.stream_chat_oai(ASK, llm_config={"timeout_s": 0.08}))

    assert all(request.left.wait(5) for request in wire.requests)
    assert llm.chat_oai("free")[0].output == "echo free"


@pytest.mark.parametrize(
    "broken",
    [
        [HEAD, chunk(piece("a")), CLOSE],
        [HEAD, chunk(piece("a")), b"5\r\nda", CLOSE],
        stream(piece("a")),
        stream(piece("a"), piece("b")[:-20]),
        [HEAD, chunk(piece("a")), 0.05, b"nonsense\r\n", HANG],
    ],
)
def test_a_stream_that_breaks_off_is_an_error_after_the_text_so_far(
    deploy: Deploy, wire: WireServer, broken: Any
) -> None:
    llm = deploy(max_retries=5)
    wire.will(broken)
    seen: list[str] = []

    with pytest.raises((StreamError, ProviderError)) as caught:
        read_into(seen, llm)

    assert seen == ["a"]
    assert "in the middle of its answer" in str(caught.value) or "HTTP" in str(caught.value)
    assert len(wire.requests) == 1


def test_an_error_in_the_middle_of_a_stream_is_told(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()
    wire.will(stream(piece("a"), event({"error": {"message": "out of memory", "code": "oom"}})))
    seen: list[str] = []

    with pytest.raises(ProviderError, match="out of memory") as caught:
        read_into(seen, llm)

    assert seen == ["a"] and caught.value.code == "oom"


# -- connections --------------------------------------------------------------------------------


def test_calls_in_a_row_share_one_connection(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()
    wire.will(chat("a"), says("b"), whole({"error": "no"}, 400), chat("c"))

    llm.chat_oai(ASK)
    list(llm.stream_chat_oai(ASK))
    with pytest.raises(ProviderError):
        llm.chat_oai(ASK)
    llm.chat_oai(ASK)
    llm.emb("", ["a"])

    assert {request.connection for request in wire.requests} == {wire.checks[0].connection}


def test_a_connection_that_the_provider_closed_is_not_used_again(
    deploy: Deploy, wire: WireServer
) -> None:
    llm = deploy()
    for _ in range(3):
        wire.will([chat("a"), CLOSE])
        llm.chat_oai(ASK)
        assert settles(lambda: wire.open == 0)

    assert wire.connections == 3


def test_undeploying_closes_the_connections(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()
    llm.chat_oai(ASK)

    async def elsewhere() -> None:
        await llm.async_chat_oai(ASK)
        await llm.async_undeploy(llm.default_model_name)

    assert wire.open == 1
    asyncio.run(elsewhere())

    assert settles(lambda: wire.open == 0)


def test_many_event_loops_one_after_the_other_leave_nothing(
    deploy: Deploy, wire: WireServer
) -> None:
    llm = deploy()
    loops: list[weakref.ref[Any]] = []

    async def call() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(llm.async_chat_oai(ASK) for _ in range(3)))
        async for _ in llm.async_stream_chat_oai(ASK):
            pass
        async for _ in llm.async_stream_chat_oai(ASK):
            break  # left open: the loop's end closes it

    asyncio.run(call())
    gc.collect()
    assert settles(lambda: wire.open <= 1)  # that of the background loop
    before = open_files()
    for _ in range(10):
        asyncio.run(call())
    gc.collect()  # what was not closed warns now, and warnings are errors

    assert [loop() for loop in loops] == [None] * 11
    assert settles(lambda: wire.open <= 1)
    assert settles(lambda: open_files() <= before)


def test_threads_and_loops_call_at_once(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy()

    def plain(number: int) -> list[str]:
        whole_reply = llm.chat_oai(f"p{number}")[0].output
        return [whole_reply, [text for text, _ in llm.stream_chat_oai(f"p{number}")][-1]]

    def on_a_loop(number: int) -> list[str]:
        async def calls() -> list[str]:
            whole_reply = (await llm.async_chat_oai(f"p{number}"))[0].output
            texts = [text async for text, _ in llm.async_stream_chat_oai(f"p{number}")]
            return [whole_reply, texts[-1]]

        return asyncio.run(calls())

    with ThreadPoolExecutor(12) as threads:
        jobs = [threads.submit((plain, on_a_loop)[n % 2], n) for n in range(36)]

    assert [job.result() for job in jobs] == [[f"echo p{n}"] * 2 for n in range(36)]


def test_200_calls_and_200_streams_at_once(deploy: Deploy) -> None:
    llm = deploy()

    async def one(number: int) -> str:
        return str((await llm.async_chat_oai(f"p{number}"))[0].output)

    async def streamed(number: int) -> str:
        return [text async for text, _ in llm.async_stream_chat_oai(f"p{number}")][-1]

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(one, range(200)), *map(streamed, range(200)))

    assert asyncio.run(all_of_them()) == [f"echo p{number}" for number in range(200)] * 2


# -- letting go ---------------------------------------------------------------------------------

SPEAKING = [HEAD, chunk(piece("a")), HANG]


def close_stream(llm: ByzerLLM, wire: WireServer) -> None:
    pieces = llm.stream_chat_oai(ASK)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]


def close_async_stream(llm: ByzerLLM, wire: WireServer) -> None:
    async def call() -> None:
        pieces = llm.async_stream_chat_oai(ASK)
        await pieces.__anext__()
        await pieces.aclose()  # type: ignore[attr-defined]

    asyncio.run(call())


def cancel(work: Callable[[ByzerLLM], Any]) -> Callable[[ByzerLLM, WireServer], None]:
    def run(llm: ByzerLLM, wire: WireServer) -> None:
        async def call() -> None:
            task = asyncio.ensure_future(work(llm))
            await asyncio.to_thread(settles, lambda: bool(wire.requests))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(call())

    return run


async def read_all(llm: ByzerLLM) -> None:
    async for _ in llm.async_stream_chat_oai(ASK):
        pass


def abort(work: Callable[[ByzerLLM, dict[str, Any]], Any]) -> Callable[..., None]:
    def run(llm: ByzerLLM, wire: WireServer) -> None:
        caught: list[BaseException] = []

        def call() -> None:
            try:
                work(llm, {"gen.request_id": "r1"})
            except CallAborted as error:
                caught.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        assert settles(lambda: bool(wire.requests))
        assert llm.abort("r1") is True
        thread.join(5)
        assert len(caught) == 1

    return run


LET_GO = {
    "close a stream": (SPEAKING, close_stream),
    "close an async stream": (SPEAKING, close_async_stream),
    "cancel a call": ([HANG], cancel(lambda llm: llm.async_chat_oai(ASK))),
    "cancel a call in its answer": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", HANG],
        cancel(lambda llm: llm.async_chat_oai(ASK)),
    ),
    "cancel a stream": (SPEAKING, cancel(read_all)),
    "cancel a silent stream": ([HANG], cancel(read_all)),
    "abort a call": ([HANG], abort(lambda llm, config: llm.chat_oai(ASK, llm_config=config))),
    "abort a stream": (
        SPEAKING,
        abort(lambda llm, config: list(llm.stream_chat_oai(ASK, llm_config=config))),
    ),
}


@pytest.mark.parametrize("way", LET_GO)
def test_letting_go_closes_the_connection_and_frees_the_slot(
    deploy: Deploy, wire: WireServer, way: str
) -> None:
    llm = deploy(slots=1)
    answer, let_go = LET_GO[way]
    wire.will(answer)

    let_go(llm, wire)

    assert wire.requests[0].left.wait(5), "the provider goes on for nobody"
    assert llm.chat_oai("free")[0].output == "echo free"


# -- secrets and errors -------------------------------------------------------------------------

INDISCREET = {
    "refusal": whole({"error": {"message": f"wrong key {KEY}", "code": KEY}}, 401),
    "request id": whole({"error": "no"}, 400, X_Request_Id=KEY),
    "html": whole(f"<html>{KEY}</html>".encode(), kind="text/html"),
    "not an object": whole([KEY]),
    "another shape": whole({"you sent": KEY}),
    "error with 200": whole({"error": {"message": KEY}}),
    "redirect": whole(b"", 307, Location=f"http://127.0.0.1/?key={KEY}"),
    "status line": whole({}, f"500 {KEY}"),
    "bad status line": [f"HTTP/9 {KEY}\r\n\r\n".encode(), CLOSE],
    "bad header": [f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(), CLOSE],
    "closed": [CLOSE],
    "error event": stream(piece("a"), event({"error": KEY})),
    "broken event": stream(piece("a"), event(f"{{{KEY}")),
    "event of another shape": stream(piece("a"), event({"choices": KEY})),
}


def everything_about(error: BaseException) -> str:
    """All that a log, a debugger or another process would see of an error."""
    told = [str(error), repr(error), repr(vars(error)), repr(pickle.dumps(error))]
    told += traceback.format_exception(error)
    for other in (error.__cause__, error.__context__):
        if other is not None:
            told += [repr(other), repr(vars(other))]
    return "\n".join(told)


@pytest.mark.parametrize("case", INDISCREET)
def test_the_key_is_never_told(
    deploy: Deploy, wire: WireServer, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    llm = deploy(headers={"X-Other": f"Token {KEY[::-1]}"})
    wire.always(INDISCREET[case])

    for call in (llm.chat_oai, lambda ask: list(llm.stream_chat_oai(ask))):
        with pytest.raises(ByzerError) as caught:
            call(ASK)
        assert KEY not in everything_about(caught.value)
        assert KEY[::-1] not in everything_about(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again)) == (type(caught.value), str(caught.value))
        assert vars(again) == vars(caught.value)
    assert KEY not in caplog.text
    assert KEY not in repr(llm.get_meta(""))


def test_the_key_does_not_follow_a_redirect(deploy: Deploy, wire: WireServer) -> None:
    elsewhere = WireServer()
    llm = deploy()
    wire.will(whole(b"", 307, Location=elsewhere.url + "/chat/completions"))

    with pytest.raises(ProviderError, match=rf"307.*127\.0\.0\.1:{elsewhere.port}"):
        llm.chat_oai(ASK)

    assert elsewhere.connections == 0
    elsewhere.close()


def test_given_headers_go_with_every_request_and_win(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy(headers='{"authorization": "Basic abc", "X-Team": "7"}')

    llm.chat_oai(ASK)

    for request in (wire.checks[0], wire.requests[0]):
        assert (request.headers["authorization"], request.headers["x-team"]) == ("Basic abc", "7")


def test_an_api_version_goes_with_every_request(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy(base_url=None, api_base=wire.url + "/?a=b", api_version="2024-06-01")

    llm.chat_oai(ASK)

    assert wire.checks[0].path == "/v1/models?a=b&api-version=2024-06-01"
    assert wire.requests[0].path == "/v1/chat/completions?a=b&api-version=2024-06-01"


def test_a_proxy_takes_the_calls(deploy: Deploy, wire: WireServer) -> None:
    llm = deploy(
        base_url="http://api.example.invalid/v1", proxies={"http": f"http://127.0.0.1:{wire.port}"}
    )

    wire.always(
        lambda request: chat(request.path), path="http://api.example.invalid/v1/chat/completions"
    )

    assert llm.chat_oai(ASK)[0].output == "http://api.example.invalid/v1/chat/completions"


def test_a_dead_proxy_is_told_from_a_dead_provider(deploy: Deploy) -> None:
    password = KEY[::-1]  # not in the source, which tracebacks show

    with pytest.raises(ProviderUnreachable, match=r"127\.0\.0\.1:1 .*saas\.proxies") as caught:
        deploy(base_url="http://127.0.0.1:2/v1", proxies=f"http://me:{password}@127.0.0.1:1")

    assert password not in everything_about(caught.value)


def test_nothing_is_printed(deploy: Deploy, capfd: pytest.CaptureFixture[str]) -> None:
    llm = deploy()
    llm.chat_oai(ASK)
    list(llm.stream_chat_oai(ASK))

    assert capfd.readouterr() == ("", "")
