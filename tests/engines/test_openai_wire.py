"""The OpenAI wire format: what is sent, and what of an answer is understood or refused."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_server import DONE, WireServer, chat, completion, counts, event, piece, stream, whole

from byzerllm.engines.http import Http
from byzerllm.engines.openai_wire import OpenAIWire, decode, encode, read_usage
from byzerllm.errors import ByzerError, ConfigError, ProviderError, StreamError, Unsupported
from byzerllm.types.engine import Pieces
from byzerllm.types.records import Chunk, Generate, PromptProgress, Reply, Usage
from byzerllm.types.sampling import read

ASK = Generate("m", messages=[{"role": "user", "content": "hi"}])


def engine_at(wire: WireServer) -> OpenAIWire:
    engine = OpenAIWire()
    engine.name, engine.model = "peer", "m"
    engine.http = Http(wire.url, name="peer", timeout=5, connector=aiohttp.TCPConnector)
    return engine


@pytest.fixture
async def engine(wire: WireServer) -> AsyncIterator[OpenAIWire]:
    found = engine_at(wire)
    yield found
    await found.close()


async def ask(engine: OpenAIWire, **params: Any) -> Reply:
    return await engine.generate(ASK, read(params))


async def items(engine: OpenAIWire, **params: Any) -> list[Any]:
    return [item async for item in engine.stream(ASK, read(params))]


async def streamed(engine: OpenAIWire, **params: Any) -> Reply:
    pieces = Pieces()
    for item in await items(engine, **params):
        pieces.add(item)
    return pieces.reply()


# -- what is sent -------------------------------------------------------------------------------


async def test_settings_go_into_the_body_under_their_standard_names(
    engine: OpenAIWire, wire: WireServer
) -> None:
    await ask(engine, **{"max_length": 5, "gen.stop": ["a"], "temperature": 0, "hook.x": 1})
    await items(engine, seed=7)

    assert [request.json for request in wire.requests] == [
        {"model": "m", "messages": ASK.messages, "max_tokens": 5, "stop": ["a"], "temperature": 0},
        {
            "model": "m",
            "messages": ASK.messages,
            "seed": 7,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ]


async def test_a_prompt_goes_to_completions(engine: OpenAIWire, wire: WireServer) -> None:
    answer = {"choices": [{"text": " world", "finish_reason": "length"}]}
    wire.will(
        whole(answer), stream(event({"choices": [{"text": " wor"}]}), event(answer), DONE),
        path="/completions",
    )  # fmt: skip
    request = Generate("m", prompt="hello")

    reply = await engine.generate(request, read({}))
    items = [item async for item in engine.stream(request, read({}))]

    assert wire.requests[0].json == {"model": "m", "prompt": "hello"}
    assert (reply.value, reply.finish_reason) == (" world", "length")
    assert [item.text for item in items if isinstance(item, Chunk)] == [" wor", " world"]


async def test_a_beginning_is_sent_and_is_part_of_the_reply(
    engine: OpenAIWire, wire: WireServer
) -> None:
    engine.assistant_prefix = True
    wire.will(chat(" world"), stream(piece(" wor"), piece("ld"), piece(finish="stop"), DONE))

    reply = await ask(engine, response_prefix="hello")
    parts = await streamed(engine, response_prefix="hello")

    assert reply.value == parts.value == "hello world"
    assert wire.requests[0].json["messages"][-1] == {"role": "assistant", "content": "hello"}
    assert ASK.messages is not None and len(ASK.messages) == 1


async def test_a_beginning_is_refused_where_the_model_cannot(engine: OpenAIWire) -> None:
    with pytest.raises(Unsupported, match="begin with a given text"):
        await ask(engine, response_prefix="hello")


@pytest.mark.parametrize("value", [object(), {1, 2}, "\ud800", {(1, 2): 3}])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    if isinstance(value, set):
        assert encode(value) == b"[1,2]"  # a list for the peer
    else:
        with pytest.raises(ConfigError, match="cannot be written as JSON"):
            encode({"value": value})


# -- what is understood -------------------------------------------------------------------------


async def test_a_reply_carries_all_the_peer_said(engine: OpenAIWire, wire: WireServer) -> None:
    body = completion("Berlin.", finish="length", reasoning="hm")
    body["choices"][0]["logprobs"] = {"content": []}
    body["usage"]["prompt_tokens_details"] = {"cached_tokens": 8}
    wire.will(whole(body))

    reply = await ask(engine)

    assert (reply.value, reply.reasoning, reply.finish_reason) == ("Berlin.", "hm", "length")
    assert (reply.usage, reply.request_id) == (Usage(12, 3, 8), "chatcmpl-7")
    assert reply.logprobs == {"content": []}


async def test_content_in_parts_is_put_together(engine: OpenAIWire, wire: WireServer) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts = [thought, {"type": "text", "text": "Ber"}, {"type": "text", "text": "lin."}]
    wire.will(chat(parts), stream(piece("", content=parts), piece(finish="stop"), DONE), chat(None))

    assert (await ask(engine)).value == "Berlin."
    assert (await streamed(engine)).value == "Berlin."
    assert (await ask(engine)).value == ""


async def test_choices_are_told_apart_by_their_index(engine: OpenAIWire, wire: WireServer) -> None:
    wire.will(
        stream(
            piece("b", index=1),
            piece("a"),
            piece("B", index=1, finish="stop"),
            piece("A", finish="length"),
            DONE,
        )
    )

    reply = await streamed(engine)

    assert (reply.value, reply.finish_reason) == ("aA", "length")
    assert [(other.value, other.finish_reason) for other in reply.others] == [("bB", "stop")]


async def test_usage_in_any_event_counts_without_further_pieces(
    engine: OpenAIWire, wire: WireServer
) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    last = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage}
    wire.will(stream(piece("a"), event(last), DONE), stream(piece("a", finish="stop"), counts()))

    first = await items(engine)
    assert [chunk.usage for chunk in first] == [None, Usage(1, 2)]
    assert [chunk.usage for chunk in await items(engine)] == [None, Usage(12, 3)]


async def test_prompt_progress_is_passed_on(engine: OpenAIWire, wire: WireServer) -> None:
    progress = {"choices": [], "prompt_progress": {"processed": 256, "total": 1000}}
    wire.will(stream(event(progress), piece("a", finish="stop"), DONE))

    assert (await items(engine))[0] == PromptProgress(256, 1000)


@pytest.mark.parametrize(
    "ending",
    [[piece(finish="stop")], [DONE], [piece(finish="stop"), counts()], [b"data: [DONE]\n"]],
)
async def test_a_stream_ends_with_a_reason_or_with_done(
    engine: OpenAIWire, wire: WireServer, ending: list[bytes]
) -> None:
    wire.will(stream(piece("a"), *ending))

    assert (await streamed(engine)).value == "a"


@pytest.mark.parametrize("said", [[], [piece("a")], [counts()], [b": comment\n\n"]])
async def test_a_stream_that_only_stops_is_no_reply(
    engine: OpenAIWire, wire: WireServer, said: list[bytes]
) -> None:
    wire.will(stream(*said))

    with pytest.raises(StreamError, match="middle of its answer"):
        await items(engine)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (None, None),
        ("many", None),
        ({}, Usage()),
        ({"prompt_tokens": "7", "completion_tokens": -1}, Usage()),
        ({"prompt_tokens": 7, "prompt_tokens_details": None}, Usage(7)),
        ({"prompt_tokens": 7, "prompt_tokens_details": [1]}, Usage(7)),
    ],
)
def test_only_counts_are_counted(usage: Any, counted: Usage | None) -> None:
    assert read_usage(usage) == counted


async def test_vectors_may_come_as_base64(engine: OpenAIWire, wire: WireServer) -> None:
    text = base64.b64encode(struct.pack("<3f", 0.5, -1, 2)).decode()
    wire.will(whole({"data": [{"embedding": text}]}), path="/embeddings")

    assert (await engine.embed(["a"], {})).value == [[0.5, -1.0, 2.0]]


async def test_a_score_may_be_called_score(engine: OpenAIWire, wire: WireServer) -> None:
    rows = [{"index": 1, "score": 2}, {"index": 0, "score": 0.5}]
    wire.will(whole({"data": rows}), path="/rerank")

    assert (await engine.rerank([("q", "a"), ("q", "b")], {})).value == [0.5, 2.0]


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": {}},
        {"choices": "text"},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"content": ["text"]}}]},
        {"choices": [{"message": {"content": {"a": 1}}}]},
        {"choices": [{"message": {"content": "a", "reasoning": 1}}]},
        {"choices": [{"text": 7}]},
        {"choices": [{"index": 0, "text": "a"}, {"index": None, "text": "b"}]},
    ],
)
async def test_an_answer_of_another_shape_is_refused(
    engine: OpenAIWire, wire: WireServer, body: Any
) -> None:
    wire.will(whole(body))

    with pytest.raises(ProviderError, match=r"another shape than OpenAI's.*saas\.base_url"):
        await ask(engine)


@pytest.mark.parametrize("body", [[], "text", 5, None, [{"choices": []}]])
async def test_json_that_is_no_object_is_refused(
    engine: OpenAIWire, wire: WireServer, body: Any
) -> None:
    wire.will(whole(body), stream(event(json.dumps(body))))

    for call in (ask(engine), items(engine)):
        with pytest.raises(ProviderError, match="JSON that is not an object"):
            await call


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"choices": [', b"\xff", b"[" * 100_000])
async def test_what_is_not_json_is_refused(
    engine: OpenAIWire, wire: WireServer, body: bytes
) -> None:
    wire.will(whole(body))

    with pytest.raises(ProviderError, match=r"not JSON.*Check the base_url"):
        await ask(engine)


@pytest.mark.parametrize(
    "said",
    [
        {"choices": 5},
        {"choices": [5]},
        {"choices": [{"delta": "text"}]},
        {"choices": [{"delta": {"content": 5}}]},
        {"choices": [{"delta": {"content": "a", "reasoning": 5}}]},
        {"prompt_progress": 5},
    ],
)
async def test_an_event_of_another_shape_is_refused(
    engine: OpenAIWire, wire: WireServer, said: Any
) -> None:
    wire.will(stream(piece("a"), event(said)))

    with pytest.raises(ProviderError, match="another shape than OpenAI's"):
        await items(engine)


@pytest.mark.parametrize(
    ("problem", "status", "retryable"),
    [("it broke", 0, False), ({"message": "it broke", "code": 502}, 502, True)],
)
async def test_an_error_in_an_answer_with_status_200_is_an_error(
    engine: OpenAIWire, wire: WireServer, problem: Any, status: int, retryable: bool
) -> None:
    wire.will(whole({"error": problem}), stream(event({"error": problem})))

    for call in (ask(engine), items(engine)):
        with pytest.raises(ProviderError, match="it broke") as caught:
            await call
        assert (caught.value.status, caught.value.retryable) == (status, retryable)


@pytest.mark.parametrize(
    "rows",
    [
        None,
        5,
        [],
        [{"embedding": [1.0]}],
        [{"embedding": [1.0]}] * 3,
        [{"embedding": [1.0]}, {}],
        [{"embedding": [1.0]}, {"embedding": []}],
        [{"embedding": [1.0]}, {"embedding": ["x"]}],
        [{"embedding": [1.0]}, {"embedding": "not base64!"}],
        [{"embedding": [1.0]}, {"embedding": "AAA="}],
        [{"embedding": [1.0], "index": 1}, {"embedding": [2.0], "index": 1}],
        [{"embedding": [1.0], "index": 0}, {"embedding": [2.0], "index": 2}],
        [{"embedding": [1.0], "index": -1}, {"embedding": [2.0], "index": 0}],
        [{"embedding": [1.0], "index": "a"}, {"embedding": [2.0], "index": 0}],
        [[1.0], [2.0]],
    ],
)
async def test_vectors_that_do_not_fit_are_refused(
    engine: OpenAIWire, wire: WireServer, rows: Any
) -> None:
    wire.will(whole({"data": rows}), path="/embeddings")

    with pytest.raises(ProviderError, match="peer"):
        await engine.embed(["a", "b"], {})


@pytest.mark.parametrize(
    "rows",
    [
        None,
        "ab",
        [{"index": 0, "relevance_score": 1}],
        [{"index": 0, "relevance_score": 1}] * 2,
        [{"index": 0, "relevance_score": 1}, {"index": 2, "relevance_score": 1}],
        [{"index": -1, "relevance_score": 1}, {"index": 0, "relevance_score": 1}],
        [{"index": 0, "relevance_score": 1}, {"index": 1}],
        [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": "high"}],
        [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": None}],
    ],
)
async def test_scores_that_do_not_fit_are_refused(
    engine: OpenAIWire, wire: WireServer, rows: Any
) -> None:
    wire.will(whole({"results": rows}), path="/rerank")

    with pytest.raises(ProviderError, match="peer"):
        await engine.rerank([("q", "a"), ("q", "b")], {})


NAMES = st.sampled_from(
    ["choices", "message", "delta", "content", "text", "usage", "index", "error", "reasoning"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.just("text") | st.floats(-1, 1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING)
def test_no_answer_causes_anything_but_an_error_of_ours(body: Any) -> None:
    engine = OpenAIWire()
    engine.http = Http("http://127.0.0.1", name="peer", connector=aiohttp.TCPConnector)
    data = json.dumps(body).encode()

    async def post(path: str, sent: bytes) -> bytes:
        return data

    async def events(path: str, sent: bytes, *, last: bytes) -> AsyncIterator[bytes]:
        yield data
        yield last

    engine.http.post, engine.http.events = post, events  # type: ignore[method-assign]

    async def one_of_each() -> None:
        for call in (
            ask(engine),
            streamed(engine),
            engine.embed(["a"], {}),
            engine.rerank([("q", "a")], {}),
        ):
            try:
                reply = await call
            except ByzerError:
                continue
            assert isinstance(reply.value, str | list)

    with pytest.raises(StopIteration):
        one_of_each().send(None)


def test_decoding_shows_a_piece_of_what_came() -> None:
    with pytest.raises(ProviderError, match="peer answered something that is not JSON: 'nonsense'"):
        decode(b"nonsense", "peer")
