"""HTTP as engines see it: errors in our words, nothing unbounded, nothing left behind."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from wire_server import CLOSE, DONE, END, HANG, HEAD, RESET, WireServer, chunk, event, stream, whole

from byzerllm.engines import http
from byzerllm.engines.http import Http, system_proxy
from byzerllm.errors import (
    ByzerError,
    CallTimeout,
    ConfigError,
    ProviderError,
    ProviderUnreachable,
    StreamError,
)

PATH = "/chat/completions"


def connector() -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(limit=0)


def client(wire: WireServer, **options: Any) -> Http:
    options = {"name": "peer", "timeout": 5.0, "connector": connector, **options}
    return Http(options.pop("base_url", wire.url), **options)


@pytest.fixture
async def peer(wire: WireServer) -> AsyncIterator[Http]:
    found = client(wire)
    yield found
    await found.close()


async def read(peer: Http) -> list[bytes]:
    return [event async for event in peer.events(PATH, b"{}")]


# -- whole answers ------------------------------------------------------------------------------


async def test_an_answer_in_any_framing_is_the_same(peer: Http, wire: WireServer) -> None:
    ok = b"HTTP/1.1 200 OK\r\n"
    wire.will(
        whole(b"[1, 2]"),
        [ok + b"Content-Length: 6\r\n\r\n", *(bytes([byte]) for byte in b"[1, 2]")],
        [ok + b"Transfer-Encoding: chunked\r\n\r\n", chunk(b"[1,"), 0.01, chunk(b" 2]"), END],
        [ok + b"\r\n[1,", 0.01, b" 2]", CLOSE],
        whole(gzip.compress(b"[1, 2]"), Content_Encoding="gzip"),
        whole(zlib.compress(b"[1, 2]"), Content_Encoding="deflate"),
        [b"HTTP/1.1 100 Continue\r\n\r\n" + whole(b"[1, 2]")],
    )

    assert [await peer.post(PATH, b"{}") for _ in range(7)] == [b"[1, 2]"] * 7


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 429, 500, 503])
async def test_a_refusal_carries_what_the_peer_said(
    peer: Http, wire: WireServer, status: int
) -> None:
    said = {"error": {"message": "no", "type": "t", "code": "c"}}
    wire.will(*[whole(said, status, X_Request_Id="r")] * 2)

    for call in (peer.post(PATH, b"{}"), read(peer)):
        with pytest.raises(ProviderError, match=f"peer answered {status}: no") as caught:
            await call
        error = caught.value
        assert (error.status, error.code, error.request_id) == (status, "c", "r")
        assert error.retryable is (status in (429, 500, 503))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": "plain"}', "plain"),
        (b'{"message": "top"}', "top"),
        (b'{"detail": "fast"}', "fast"),
        (b'{"error": {"msg": "short"}}', "short"),
        (b'[{"error": {"message": "in a list"}}]', "in a list"),
        (b'"just text"', "just text"),
        (b"<html>  <b>Bad\n gateway</b>", "<html> <b>Bad gateway</b>"),
        (b"", "Status"),
        (b"\xff\xfe\x00", "�"),
        (b"[" * 100_000, r"\[\["),
        (b'{"error": 5}', '{"error": 5}'),
        (b"null", "null"),
    ],
)
async def test_the_message_is_found_in_every_shape(
    peer: Http, wire: WireServer, body: bytes, said: str
) -> None:
    wire.will(whole(body, 400))

    with pytest.raises(ProviderError, match=f"answered 400: {said}"):
        await peer.post(PATH, b"{}")


async def test_a_refusal_is_read_whole_even_in_pieces(peer: Http, wire: WireServer) -> None:
    slow = [b'{"error": ', 0.02, b'{"message": "after', 0.02, b' a while"}}']
    head = b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % sum(
        len(part) for part in slow if isinstance(part, bytes)
    )
    wire.will([head, *slow], [head, *slow])

    for call in (peer.post(PATH, b"{}"), read(peer)):
        with pytest.raises(ProviderError, match="after a while"):
            await call


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7),
        ({"Retry_After": "0.5"}, 0.5),
        ({"Retry_After": "-3"}, 0),
        ({"Retry_After": formatdate(time.time() + 100_000, usegmt=True)}, 99_000),
        ({"Retry_After": formatdate(0, usegmt=True)}, 0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "inf"}, None),
        ({"Retry_After": ""}, None),
        ({"retry_after_ms": "250", "Retry_After": "7"}, 0.25),
        ({"retry_after_ms": "x", "Retry_After": "7"}, 7),
        ({}, None),
    ],
)
async def test_retry_after_is_read_in_all_its_forms(
    peer: Http, wire: WireServer, headers: dict[str, str], seconds: float | None
) -> None:
    wire.will(whole(b"", 429, **headers))

    with pytest.raises(ProviderError) as caught:
        await peer.post(PATH, b"{}")

    found = caught.value.retry_after
    assert found == seconds or (seconds == 99_000 and found and 90_000 < found <= 100_000)


async def test_too_long_an_answer_is_given_up(
    peer: Http, wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_BODY", 1 << 20)
    flood = b"HTTP/1.1 200 OK\r\n\r\n", *[b" " * (1 << 16)] * 64, HANG
    wire.will(flood)

    with pytest.raises(ProviderError, match="more than 1048576 bytes"):
        await peer.post(PATH, b"{}")

    assert await asyncio.to_thread(wire.requests[0].left.wait, 5)


async def test_a_compressed_flood_is_not_unpacked(
    peer: Http, wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_BODY", 1 << 20)
    bomb = gzip.compress(bytes(64 << 20))
    wire.will(whole(bomb, Content_Encoding="gzip"), whole(bomb, 400, Content_Encoding="gzip"))

    tracemalloc.start()
    with pytest.raises(ProviderError, match="more than 1048576 bytes"):
        await peer.post(PATH, b"{}")
    with pytest.raises(ProviderError, match="answered 400"):
        await peer.post(PATH, b"{}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("steps", "kind", "said"),
    [
        ([CLOSE], ProviderUnreachable, "closed the connection without an answer"),
        ([RESET], ProviderUnreachable, "closed the connection|No connection"),
        ([b"HTTP/1.1 200 OK\r\nConte", CLOSE], ProviderError, "does not speak HTTP|closed"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", CLOSE], ProviderUnreachable, "middle"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", RESET], ProviderUnreachable, "middle"),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"["), CLOSE],
            ProviderUnreachable,
            "middle",
        ),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0.02, b"zz\r\n", HANG],
            ProviderUnreachable,
            "middle",
        ),
        ([b"HTTP/1.1 abc OK\r\n\r\n", CLOSE], ProviderError, "does not speak HTTP"),
        ([b"SSH-2.0-OpenSSH_9.0\r\n", HANG], ProviderError, "does not speak HTTP"),
        ([b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", CLOSE], ProviderError, "does not speak HTTP"),
        ([b"HTTP/1.1 200 OK\r\nA: " + b"x" * 99_999], ProviderError, "does not speak HTTP"),
        ([whole(b"not gzip", Content_Encoding="gzip")], ProviderUnreachable, "middle"),
    ],
)
async def test_what_is_no_answer_is_an_error_of_ours(
    peer: Http, wire: WireServer, steps: Any, kind: type[ByzerError], said: str
) -> None:
    wire.will(steps, steps)

    for call in (peer.post(PATH, b"{}"), read(peer)):
        with pytest.raises((kind, ProviderUnreachable, ProviderError), match=said):
            await call


@pytest.mark.parametrize(
    "address", ["http://nowhere.invalid/v1", f"http://{'a' * 64}.invalid/v1", "http://[::1/v1"]
)
async def test_an_address_that_leads_nowhere_is_an_error_of_ours(
    wire: WireServer, address: str
) -> None:
    peer = client(wire, base_url=address)

    with pytest.raises((ProviderUnreachable, ConfigError), match=r"saas\.base_url"):
        await peer.get("/models")
    await peer.close()


async def test_a_time_out_names_its_seconds_and_lets_go(wire: WireServer) -> None:
    peer = client(wire, timeout=0.1)
    wire.always([HANG])
    wire.always([HANG], path="/models")

    with pytest.raises(CallTimeout, match=r"0\.1 s"):
        await peer.post(PATH, b"{}")
    with pytest.raises(CallTimeout, match=r"0\.05 s"):
        await peer.get("/models", timeout=0.05)
    with pytest.raises(CallTimeout, match=r"0\.1 s"):
        await read(peer)

    assert all([await asyncio.to_thread(r.left.wait, 5) for r in wire.requests])
    await peer.close()


async def test_cookies_are_not_kept(peer: Http, wire: WireServer) -> None:
    wire.will(whole(b"{}", Set_Cookie="a=b"))

    await peer.post(PATH, b"{}")
    await peer.post(PATH, b'{"messages": [{"content": ""}]}')

    assert "cookie" not in wire.requests[1].headers


# -- streams ------------------------------------------------------------------------------------


async def test_events_come_one_by_one_up_to_the_last(peer: Http, wire: WireServer) -> None:
    wire.will(stream(event("a"), event("b") + event("c"), DONE, event("never")))

    assert await read(peer) == [b"a", b"b", b"c", b"[DONE]"]


async def test_events_may_be_cut_anywhere(peer: Http, wire: WireServer) -> None:
    data = event("🙂 漢字") + event("b") + DONE
    wire.will([HEAD, *(chunk(bytes([byte])) for byte in data), END])

    assert await read(peer) == ["🙂 漢字".encode(), b"b", b"[DONE]"]


async def test_a_stream_leaves_its_connection_to_the_next(peer: Http, wire: WireServer) -> None:
    answer = [HEAD, chunk(event("a")), chunk(DONE), 0.05, END]
    wire.will(answer, answer, whole(b"{}"))

    await read(peer)
    await read(peer)
    await peer.post(PATH, b"{}")

    assert wire.connections == 1


async def test_a_stream_ends_though_the_peer_does_not_end_it(
    peer: Http, wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LAST_WORDS", 0.05)
    babble = [part for _ in range(400) for part in (chunk(b": \n"), 0.01)]
    wire.will([HEAD, chunk(DONE), HANG], [HEAD, chunk(DONE), *babble])

    assert await read(peer) == [b"[DONE]"]
    assert await read(peer) == [b"[DONE]"]
    assert all([await asyncio.to_thread(r.left.wait, 2) for r in wire.requests])


@pytest.mark.parametrize(
    "end",
    [[CLOSE], [RESET], [b"5\r\nab", CLOSE], [b"nonsense\r\n", HANG], [b"nonsense\r\n", CLOSE]],
)
async def test_a_broken_stream_is_told_apart_by_what_was_seen(
    peer: Http, wire: WireServer, end: list[Any]
) -> None:
    wire.will([HEAD, 0.05, *end], [HEAD, chunk(event("a")), 0.05, *end])

    with pytest.raises(ProviderUnreachable, match="in the middle"):
        await read(peer)
    with pytest.raises(StreamError, match="in the middle"):
        await read(peer)


async def test_a_stream_that_only_ends_is_left_to_the_wire_format(
    peer: Http, wire: WireServer
) -> None:
    wire.will(stream(event("a")), stream())

    assert await read(peer) == [b"a"]
    assert await read(peer) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (whole(b"<html>hi</html>", kind="text/html"), "text/html: <html>hi</html>"),
        (whole({"error": {"message": "no stream"}}), "application/json: no stream"),
        (whole(b"data: a\n\n", kind=""), "octet-stream"),
    ],
)
async def test_what_is_no_stream_is_shown(
    peer: Http, wire: WireServer, answer: bytes, said: str
) -> None:
    wire.will(answer)

    with pytest.raises(ProviderError, match=f"answered a streaming request with .*{said}"):
        await read(peer)


async def test_closing_the_events_closes_the_connection(peer: Http, wire: WireServer) -> None:
    wire.will([HEAD, chunk(event("a")), HANG])
    events = peer.events(PATH, b"{}")

    assert await events.__anext__() == b"a"
    await events.aclose()  # type: ignore[attr-defined]

    assert await asyncio.to_thread(wire.requests[0].left.wait, 5)


# -- connections --------------------------------------------------------------------------------


async def test_calls_at_once_open_one_session(peer: Http, wire: WireServer) -> None:
    wire.always(whole(b"{}"))

    await asyncio.gather(*(peer.post(PATH, b"{}") for _ in range(20)))
    opened = wire.connections
    await asyncio.gather(*(peer.post(PATH, b"{}") for _ in range(20)))

    assert wire.connections == opened <= 20


async def test_another_peer_behind_the_address_gets_connections_of_its_own(
    wire: WireServer,
) -> None:
    where = "first"
    peer = client(wire, where=lambda: where)
    wire.always(whole(b"{}"))

    await peer.post(PATH, b"{}")
    where = "second"
    await asyncio.gather(peer.post(PATH, b"{}"), peer.post(PATH, b"{}"))
    await asyncio.gather(peer.post(PATH, b"{}"), peer.post(PATH, b"{}"))

    numbers = [request.connection for request in wire.requests]
    assert numbers[0] not in numbers[1:] and set(numbers[3:]) <= set(numbers[1:3])
    await peer.close()


async def test_closing_twice_and_calling_afterwards_is_fine(peer: Http, wire: WireServer) -> None:
    wire.always(whole(b"{}"))
    await peer.post(PATH, b"{}")

    await peer.close()
    await peer.close()

    assert await peer.post(PATH, b"{}") == b"{}"


def test_a_loop_that_stands_still_does_not_hold_up_closing(wire: WireServer) -> None:
    peer = client(wire)
    wire.always(whole(b"{}"))
    resting = asyncio.new_event_loop()
    resting.run_until_complete(peer.post(PATH, b"{}"))

    asyncio.run(peer.close())

    resting.run_until_complete(resting.shutdown_asyncgens())
    resting.close()


# -- secrets and proxies ------------------------------------------------------------------------


async def test_secrets_are_masked_but_not_what_is_too_short_to_be_one(wire: WireServer) -> None:
    peer = client(wire, secrets=("sk-12345", "4", ""))
    wire.will(whole({"error": "key sk-12345 is bad"}, 401))

    with pytest.raises(ProviderError, match=r"answered 401: key \*\*\* is bad"):
        await peer.post(PATH, b"{}")
    await peer.close()


async def test_aiohttp_errors_do_not_travel_with_ours(wire: WireServer) -> None:
    peer = client(wire, headers={"Authorization": "Bearer sk-12345"}, secrets=("sk-12345",))
    wire.will([b"HTTP/9 what\r\n\r\n", CLOSE])

    with pytest.raises(ProviderError) as caught:
        await peer.post(PATH, b"{}")

    assert caught.value.__cause__ is None
    assert not isinstance(caught.value.__context__, aiohttp.ClientError)
    await peer.close()


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", "inside.example.com")

    assert system_proxy("http://api.example.com/v1") == "http://127.0.0.1:3128"
    assert system_proxy("http://inside.example.com/v1") is None
    monkeypatch.delenv("http_proxy")
    assert system_proxy("http://api.example.com/v1") is None


async def test_a_proxy_that_refuses_is_named_without_its_password(wire: WireServer) -> None:
    peer = client(
        wire,
        base_url="https://api.example.com/v1",
        proxy=f"http://me:pass-word@127.0.0.1:{wire.port}",
        secrets=("pass-word",),
    )
    wire.always(whole(b"", 407), path="api.example.com:443")

    with pytest.raises(ProviderError, match=r"(?i)proxy") as caught:
        await peer.post(PATH, b"{}")

    assert caught.value.status == 407
    assert "pass-word" not in str(caught.value)
    await peer.close()
