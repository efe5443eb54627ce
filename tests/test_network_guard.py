"""The guard in conftest.py refuses everything but loopback. Nothing here sends a packet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# Addresses kept for documentation (RFC 5737, 3849): were the guard broken, nobody would answer.
ELSEWHERE = ("192.0.2.1", 9)
ELSEWHERE_6 = ("2001:db8::1", 9)


def connect(address: tuple[str, int]) -> None:
    socket.create_connection(address, timeout=0.1).close()


def send_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ELSEWHERE)


def connect_in_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(connect, ELSEWHERE).result()


def connect_in_loop() -> None:
    asyncio.run(asyncio.open_connection(*ELSEWHERE))


def look_up_in_loop() -> None:
    asyncio.run(asyncio.open_connection("registry.example", 443))


@pytest.mark.parametrize(
    "call",
    [
        lambda: connect(ELSEWHERE),
        lambda: connect(ELSEWHERE_6),
        send_datagram,
        connect_in_thread,
        connect_in_loop,
        look_up_in_loop,
        lambda: socket.getaddrinfo("registry.example", 443),
        lambda: socket.gethostbyname("registry.example"),
        lambda: socket.gethostbyaddr(ELSEWHERE[0]),
    ],
)
def test_the_network_is_refused(call: Callable[[], object], refusals: list[str]) -> None:
    with pytest.raises(OSError, match="loopback only"):
        call()

    assert len(refusals) == 1
    refusals.clear()


def test_a_swallowed_refusal_still_fails_the_test(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makepyfile(
        """
        import contextlib, socket

        def test_hides_it():
            with contextlib.suppress(Exception):
                socket.getaddrinfo("registry.example", 443)
        """
    )

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*look up 'registry.example'*"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_loopback_works(host: str) -> None:
    with socket.create_server(("", 0)) as server:
        connect((host, server.getsockname()[1]))


def test_unix_sockets_work(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)


def test_a_name_that_never_exists_fails_as_it_would_outside() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("gateway.invalid", 443)
