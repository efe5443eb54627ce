"""What every test gets: no network but loopback, and the real model or a clear failure."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# A shell without job control has its background jobs ignore Ctrl-C, and whatever they start
# inherits that: the tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# --------------------------------------------------------------------------- network guard
#
# An audit hook sees every connection and name look-up of this process before it happens: in any
# thread, in asyncio, whatever was imported first. Child processes are not seen.


class NetworkRefused(OSError):
    """A test reached for the network.

    An OSError, since libraries close their sockets on no other; `refusals` below makes sure that
    it is not taken for a dead host.
    """


_refusals: list[str] = []


def _stays_here(host: object) -> bool:
    """Whether reaching ``host`` (a name or a literal address) keeps to this machine."""
    if isinstance(host, bytes | bytearray):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str) or host in ("", "localhost"):
        return True  # no host at all means loopback
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_literal(host: object) -> bool:
    try:
        ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return True


def _refuse(what: str) -> None:
    message = (
        f"Tests may use loopback only, and this one wanted {what}. "
        "Start a server on 127.0.0.1 in the test and use its address."
    )
    _refusals.append(message)
    raise NetworkRefused(message)


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    if not event.startswith("socket."):
        return
    match event:
        case "socket.connect" | "socket.sendto" | "socket.sendmsg":
            sock, address = arguments[:2]
            internet = sock.family in (socket.AF_INET, socket.AF_INET6)
            if internet and isinstance(address, tuple) and not _stays_here(address[0]):
                _refuse(f"to send to {address[0]}:{address[1]}")
        case "socket.getaddrinfo" | "socket.gethostbyname":
            host = arguments[0]
            if str(host).rstrip(".").endswith(".invalid"):  # RFC 6761: never resolves anywhere
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            if not _stays_here(host) and not _is_literal(host):
                _refuse(f"to look up {host!r}")
        case "socket.gethostbyaddr":
            if not _stays_here(arguments[0]):
                _refuse(f"to look up {arguments[0]!r}")


sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def refusals() -> Iterator[list[str]]:
    """Fail a test that reached for the network even where the code swallowed the refusal.

    Holds what was refused so far; a test that means to be refused clears it.
    """
    _refusals.clear()
    yield _refusals
    if _refusals:
        pytest.fail(_refusals[0], pytrace=False)


# --------------------------------------------------------------------------- the real model


def find_smollm2() -> Path:
    """Return the bundled model's GGUF; without it the test fails, it is never skipped."""
    from byzerllm import errors, models

    with contextlib.suppress(errors.ModelNotFound):
        return models.path("smollm2")
    pytest.fail("This test needs the real model. Run: byzerllm models pull smollm2", pytrace=False)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Return the path of the real model SmolLM2-135M-Instruct (GGUF)."""
    return find_smollm2()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the real model is a ``local`` test, marked or not."""
    for item in items:
        if "smollm2" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.local)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("local"):
        find_smollm2()


# --------------------------------------------------------------------------- leaks


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread behind which would keep the interpreter from exiting."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 2
    while True:
        left = [t for t in threading.enumerate() if not t.daemon and t not in before]
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"Threads still running after the test: {left}", pytrace=False)
        time.sleep(0.01)
