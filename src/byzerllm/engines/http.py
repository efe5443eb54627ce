"""HTTP as engines need it: one connection pool per event loop, errors of ours, server-sent
events parsed once.

aiohttp was chosen by measurement: a third to a half of the time a call takes in httpx, a
sixth of the openai SDK (``benchmarks/call_overhead.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from byzerllm.errors import (
    CallTimeout,
    ConfigError,
    ProviderError,
    ProviderUnreachable,
    StreamError,
)

if TYPE_CHECKING:
    import aiohttp

MAX_BODY = 256 << 20
"""Bytes of one answer; more than this is no answer of a model."""
MAX_EVENT = 32 << 20
"""Bytes of one server-sent event."""


class Http:
    """A client for one base URL. Sessions belong to the event loop that uses them."""

    def __init__(
        self,
        base_url: str,
        *,
        name: str,
        headers: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        timeout: float | None = 600.0,
        connector: Callable[[], aiohttp.BaseConnector],
        where: Callable[[], str] = str,
        proxy: str | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.name = name
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._secrets = tuple(secret for secret in secrets if secret)
        self._timeout = timeout
        self._connector = connector
        self._where = where
        """Names the peer; a session made for another one is not used again."""
        self._proxy = proxy
        self._lock = threading.Lock()
        self._sessions: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[str, aiohttp.ClientSession, Any]
        ] = weakref.WeakKeyDictionary()

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        where = self._where()
        found = self._sessions.get(loop)
        if found is not None:
            if found[0] == where and not found[1].closed:
                return found[1]
            await found[2].aclose()
        import aiohttp

        session = aiohttp.ClientSession(
            connector=self._connector(),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=15),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
        )
        # asyncio.run() closes the async generators of its loop before it ends the loop: one
        # that holds the session is the only way to have it closed there, in time.
        holder = _hold(session)
        await holder.__anext__()
        with self._lock:
            self._sessions[loop] = (where, session, holder)
        return session

    async def post(self, path: str, body: bytes) -> bytes:
        """Send JSON, get JSON, as bytes.

        Raises:
            ProviderError: a status of 400 or more.
            ProviderUnreachable: no connection.
            CallTimeout: no answer within the engine's own time-out.
        """
        return await self._exchange("POST", path, body)

    async def get(self, path: str) -> bytes:
        """Like ``post``, without a body."""
        return await self._exchange("GET", path, None)

    async def _exchange(self, method: str, path: str, body: bytes | None) -> bytes:
        import aiohttp

        session = await self._session()
        try:
            async with session.request(
                method,
                self.base_url + path,
                data=body,
                proxy=self._proxy,
                allow_redirects=False,
            ) as response:
                data = await response.content.read(-1)
                if response.status >= 300:
                    raise self._refusal(response, data)
                return data
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise self._translated(error) from error

    async def events(self, path: str, body: bytes) -> AsyncIterator[bytes]:
        """Send JSON, get the data of server-sent events one by one.

        https://html.spec.whatwg.org/multipage/server-sent-events.html
        """
        import aiohttp

        session = await self._session()
        try:
            async with session.post(
                self.base_url + path, data=body, proxy=self._proxy, allow_redirects=False
            ) as response:
                if response.status >= 300:
                    raise self._refusal(response, await response.content.read(MAX_EVENT))
                kind = response.content_type
                if kind != "text/event-stream":
                    raise ProviderError(
                        f"{self.name} answered a streaming request with {kind}: "
                        f"{self._short(await response.content.read(2000))}",
                        status=response.status,
                    )
                async for event in _events(response.content.iter_any()):
                    yield event
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise self._translated(error) from error

    def _refusal(self, response: aiohttp.ClientResponse, data: bytes) -> ProviderError:
        code, message = _error_of(data)
        if not message:
            message = self._short(data) or response.reason or ""
        hint = _HINTS.get(response.status, "")
        return ProviderError(
            self._clean(f"{self.name} answered {response.status}: {message}{hint}"),
            status=response.status,
            code=self._clean(code),
            request_id=response.headers.get("x-request-id", ""),
            retry_after=_retry_after(response.headers.get("retry-after")),
        )

    def _translated(self, error: Exception) -> Exception:
        import aiohttp

        if isinstance(error, asyncio.TimeoutError):
            return CallTimeout(
                f"{self.name} gave no answer in time ({self._timeout} s); "
                "infer_params={'saas.timeout': …} sets it"
            )
        if isinstance(error, aiohttp.InvalidURL):
            return ConfigError(f"{self.base_url!r} is not an address; check saas.base_url")
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return ProviderUnreachable(f"{self.name} closed the connection without an answer")
        if isinstance(error, aiohttp.ClientPayloadError):
            return StreamError(f"{self.name} broke off in the middle of its answer")
        if isinstance(error, OSError):
            return ProviderUnreachable(
                self._clean(
                    f"No connection to {self.name} at {_origin(self.base_url)}: {error}. "
                    "Check saas.base_url and the network"
                )
            )
        return ProviderError(self._clean(f"{self.name} does not speak HTTP as it should: {error}"))

    def _short(self, data: bytes) -> str:
        return self._clean(" ".join(data[:500].decode(errors="replace").split()))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def close(self) -> None:
        """Close every session, each on its own loop."""
        with self._lock:
            sessions = list(self._sessions.items())
            self._sessions.clear()
        here = asyncio.get_running_loop()
        for loop, (_, _, holder) in sessions:
            if loop is here:
                await holder.aclose()
            elif not loop.is_closed():
                with contextlib.suppress(RuntimeError):  # closed since we looked
                    asyncio.run_coroutine_threadsafe(holder.aclose(), loop)


_HINTS = {
    401: ". Check infer_params={'saas.api_key': …}",
    403: ". The key may not use this model",
    404: ". Check saas.model and saas.base_url",
}


async def _hold(session: aiohttp.ClientSession) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await session.close()


async def _events(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    buffer = b""
    data: list[bytes] = []
    async for block in blocks:
        buffer += block
        if b"\r" in buffer:
            # A lone CR ends a line too; one at the very end may be half of a CRLF.
            held = b"\r" if buffer.endswith(b"\r") else b""
            buffer = buffer[: len(buffer) - len(held)]
            buffer = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and data:
                yield data[0] if len(data) == 1 else b"\n".join(data)
                data = []
        if len(buffer) > MAX_EVENT:
            raise StreamError(f"A streamed event is longer than {MAX_EVENT} bytes")
    if buffer.startswith(b"data:"):
        data.append(buffer[5:].strip())
    if data:
        yield b"\n".join(data)


def _error_of(data: bytes) -> tuple[str, str]:
    """Code and message of an error body, in any of the shapes vendors use."""
    import msgspec

    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return "", ""
    found = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(found, str):
        return "", found
    if not isinstance(found, dict):
        return "", ""
    message = found.get("message") or found.get("msg") or found.get("detail") or ""
    return str(found.get("code") or found.get("type") or ""), str(message)


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number or an HTTP date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def system_proxy(base_url: str) -> str | None:
    """The proxy that the environment names for this address, if any.

    Read once here, since asking the environment for every request costs more than the request.
    """
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(base_url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)
