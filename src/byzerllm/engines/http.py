"""HTTP as engines need it: one connection pool per event loop, errors of ours, server-sent
events parsed once.

aiohttp was chosen by measurement: a third to a half of the time a call takes in httpx, a
sixth of the openai SDK (``benchmarks/call_overhead.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from byzerllm.engines.sse import EventReader
from byzerllm.errors import (
    CallTimeout,
    ConfigError,
    ProviderError,
    ProviderUnreachable,
    StreamError,
)

if TYPE_CHECKING:
    import aiohttp
    import yarl

MAX_BODY = 256 << 20
"""Bytes of one answer, unpacked; more than this is no answer of a model."""
MAX_ERROR = 64 << 10
"""Bytes read of an answer that is shown to a person at most in part."""
CONNECT_TIMEOUT = 15.0
"""Seconds for a connection to come about."""
LAST_WORDS = 0.5
"""Seconds a server may take to end a stream whose last event it has sent."""
SHORTEST_SECRET = 6
"""Shorter ones ("none", "EMPTY") are no secrets, and masking them would garble messages."""


@dataclass(eq=False)
class _Pool:
    """The connections of one event loop."""

    where: str
    session: aiohttp.ClientSession
    holder: AsyncIterator[None]


class Http:
    """A client for one base URL. Connections belong to the event loop that uses them.

    Args:
        base_url: what paths are added to; its query, if any, goes with every request.
        name: the peer as error messages call it.
        headers: sent with every request.
        secrets: texts that no message may show.
        timeout: seconds of silence after which a call is given up; a peer that speaks, be it
            only to say that it is still there, may take until the caller's own deadline.
        connector: makes the connections of a loop.
        where: names the peer behind the address; connections to another one are dropped.
        proxy: the address of an HTTP proxy.
    """

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
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": "byzerllm",
            **(headers or {}),
        }
        self._secrets = tuple(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)
        self._timeout = timeout
        self._connector = connector
        self._where = where
        self._proxy = proxy
        self._lock = threading.Lock()
        self._urls: dict[str, yarl.URL] = {}
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    # -- requests ---------------------------------------------------------------------------

    async def post(self, path: str, body: bytes) -> bytes:
        """Send JSON, get JSON, as bytes.

        Raises:
            ProviderError: a status other than 2xx.
            ProviderUnreachable: no connection, or it was lost before the answer was whole.
            CallTimeout: no answer in time.
        """
        return await self._exchange("POST", path, body)

    async def get(self, path: str, *, timeout: float | None = None) -> bytes:
        """Like ``post``, without a body; ``timeout`` (seconds) bounds the whole of it."""
        return await self._exchange("GET", path, None, timeout)

    async def _exchange(
        self, method: str, path: str, body: bytes | None, timeout: float | None = None
    ) -> bytes:
        import aiohttp

        session = self._session() or await self._open()
        options: dict[str, Any] = {}
        if timeout is not None:
            options["timeout"] = aiohttp.ClientTimeout(timeout, connect=CONNECT_TIMEOUT)
        begun = False
        try:
            async with session.request(
                method,
                self._url(path),
                data=body,
                proxy=self._proxy,
                allow_redirects=False,
                **options,
            ) as response:
                begun = True
                if response.status >= 300:
                    raise self._refusal(response, await _read(response, MAX_ERROR))
                data = await _read(response, MAX_BODY)
                if len(data) > MAX_BODY:
                    raise ProviderError(f"{self.name} answered with more than {MAX_BODY} bytes")
                return data
        except _foreign_errors() as error:
            problem = self._translated(error, begun, timeout or self._timeout)
        # Raised out here, without a cause: aiohttp's errors hold the headers, the key among them.
        raise problem

    async def events(
        self, path: str, body: bytes, *, last: bytes = b"[DONE]"
    ) -> AsyncIterator[bytes]:
        """Send JSON, get the data of server-sent events one by one, ``last`` included.

        Closing the iterator earlier closes the connection, which ends the work at the other end.

        Raises:
            StreamError: the connection was lost after the first event.
            ProviderError, ProviderUnreachable, CallTimeout: as ``post``.
        """
        session = self._session() or await self._open()
        begun = any_event = False
        try:
            async with session.request(
                "POST",
                self._url(path),
                data=body,
                proxy=self._proxy,
                allow_redirects=False,
            ) as response:
                begun = True
                if response.status >= 300:
                    raise self._refusal(response, await _read(response, MAX_ERROR))
                if response.content_type != "text/event-stream":
                    raise self._no_stream(response, await _read(response, MAX_ERROR))
                reader, read = EventReader(), response.content.readany
                with _noticing_loss(response):
                    while block := await read():
                        for event in reader.feed(block):
                            if event == last:
                                await _drain(response)
                                yield event
                                return
                            any_event = True
                            yield event
                for event in reader.end():
                    any_event = True
                    yield event
                return
        except _foreign_errors() as error:
            problem = self._translated(error, begun, self._timeout)
        if any_event and isinstance(problem, ProviderUnreachable):
            problem = StreamError(str(problem))
        raise problem  # out here for the same reason as above

    def _url(self, path: str) -> yarl.URL:
        url = self._urls.get(path)
        if url is None:
            import yarl

            base, _, query = self.base_url.partition("?")
            text = base.rstrip("/") + path + (f"?{query}" if query else "")
            try:
                url = self._urls[path] = yarl.URL(text)
            except ValueError:
                raise self._no_address() from None
        return url

    # -- connections ------------------------------------------------------------------------

    def _session(self) -> aiohttp.ClientSession | None:
        """The session of the running loop, if it has one that leads to the peer of now."""
        pool = self._pools.get(asyncio.get_running_loop())
        if pool is None or pool.session.closed or pool.where != self._where():
            return None
        return pool.session

    async def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        loop = asyncio.get_running_loop()
        where = self._where()
        session = aiohttp.ClientSession(
            connector=self._connector(),
            headers=self._headers,
            # Not "total": a stream may well last longer, and so may a queue that says so.
            timeout=aiohttp.ClientTimeout(None, connect=CONNECT_TIMEOUT, sock_read=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        # asyncio.run() closes the async generators of its loop before it ends the loop: one
        # that holds the session is the only way to have it closed there, in time.
        holder = self._hold(loop, session)
        await holder.__anext__()  # does not yield to other tasks, so none opens a second one
        with self._lock:
            outdated = self._pools.get(loop)
            self._pools[loop] = _Pool(where, session, holder)
            for gone in [other for other in self._pools if other.is_closed()]:
                del self._pools[gone]
        if outdated is not None:
            await outdated.holder.aclose()  # type: ignore[attr-defined]
        return session

    async def _hold(
        self, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession
    ) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with self._lock:
                pool = self._pools.get(loop)
                if pool is not None and pool.session is session:
                    del self._pools[loop]
            await session.close()

    async def close(self) -> None:
        """Close the connections of every loop, each on its own loop. Safe to call twice."""
        with self._lock:
            pools = dict(self._pools)
        here = asyncio.get_running_loop()
        for loop, pool in pools.items():
            close: Callable[[], Any] = pool.holder.aclose  # type: ignore[attr-defined]
            if loop is here:
                await close()
            elif loop.is_running():
                with contextlib.suppress(RuntimeError):  # closed since we looked
                    asyncio.run_coroutine_threadsafe(close(), loop)

    # -- errors -----------------------------------------------------------------------------

    def _refusal(self, response: aiohttp.ClientResponse, data: bytes) -> ProviderError:
        code, message = error_in(data)
        if not message:
            message = self._short(data) or response.reason or ""
        hint = _HINTS.get(response.status, "")
        if response.status < 400:
            hint = f". It leads to {response.headers.get('location')!r}; correct saas.base_url"
        headers = response.headers
        error = ProviderError(
            self.clean(f"{self.name} answered {response.status}: {message}{hint}"),
            status=response.status,
            code=self.clean(code),
            request_id=self.clean(headers.get("x-request-id", "")),
            retry_after=_retry_after(headers.get("retry-after-ms"), headers.get("retry-after")),
        )
        if code in _FINAL:
            error.retryable = False
        return error

    def _no_stream(self, response: aiohttp.ClientResponse, data: bytes) -> ProviderError:
        code, message = error_in(data)
        return ProviderError(
            self.clean(
                f"{self.name} answered a streaming request with {response.content_type}: "
                f"{message or self._short(data)}"
            ),
            code=self.clean(code),
        )

    def _translated(self, error: Exception, begun: bool, timeout: float | None) -> Exception:
        """An error of aiohttp as one of ours. ``begun``: the answer had begun."""
        import aiohttp

        if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError)):
            return self._no_address()
        at = _origin(self.base_url)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return ProviderUnreachable(
                f"{self.name} at {at} took no connection within {CONNECT_TIMEOUT:g} s. "
                "Check saas.base_url and the network"
            )
        if isinstance(error, asyncio.TimeoutError):
            return CallTimeout(
                f"{self.name} gave no answer in time ({timeout} s); "
                "infer_params={'saas.timeout': …} sets it"
            )
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return ProviderError(
                self.clean(f"The proxy on the way to {self.name} refused: {error.message}"),
                status=error.status,
            )
        if isinstance(error, aiohttp.ClientResponseError):
            said = " ".join(str(error.message).split())[:300]
            return ProviderError(
                self.clean(f"{self.name} does not speak HTTP as it should: {said}")
            )
        if begun:
            return ProviderUnreachable(f"{self.name} broke off in the middle of its answer")
        if isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionResetError)):
            return ProviderUnreachable(f"{self.name} closed the connection without an answer")
        check = "saas.base_url and the network"
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            check = "saas.proxies and the environment variables http_proxy and https_proxy"
        text = f"No connection to {self.name} at {at}: {error}. Check {check}"
        refused = ProviderUnreachable(self.clean(text))
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            refused.retryable = False
        return refused

    def _no_address(self) -> ConfigError:
        return ConfigError(
            self.clean(f"{self.base_url!r} is not an address; correct saas.base_url")
        )

    def _short(self, data: bytes) -> str:
        return self.clean(" ".join(data[:500].decode(errors="replace").split()))

    def clean(self, text: str) -> str:
        """The text without our secrets."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return text


_HINTS = {
    401: ". Check infer_params={'saas.api_key': …}",
    403: ". The key may not use this model",
    404: ". Check saas.model and saas.base_url",
}
_FINAL = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Codes of refusals (OpenAI's, with status 429) that no waiting mends."""


def _foreign_errors() -> tuple[type[Exception], ...]:
    """What aiohttp raises: also plain RuntimeErrors (a connection or session closed under it)
    and UnicodeErrors (a host name that cannot be one)."""
    import aiohttp

    return aiohttp.ClientError, OSError, asyncio.TimeoutError, RuntimeError, UnicodeError


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or a little more than ``most`` bytes of it.

    Block by block, since ``read()`` would unpack a compressed body of any size.
    """
    content = response.content
    if content.is_eof():  # it came along with the headers, as short ones do
        return await content.readany()
    blocks, size = [], 0
    with _noticing_loss(response):
        while size <= most and (block := await content.readany()):
            blocks.append(block)
            size += len(block)
    return b"".join(blocks)


@contextlib.contextmanager
def _noticing_loss(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Inside, the reader of a body is told when its connection ends.

    aiohttp 3.14 closes it on a malformed chunk and tells nobody: who reads then waits for ever.
    """
    import aiohttp

    connection, content = response.connection, response.content
    closed = getattr(connection and connection.protocol, "closed", None)
    if closed is None:
        yield
        return

    def wake(_: object) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("The connection was closed"))

    # The future is the connection's, which serves many answers.
    closed.remove_done_callback(_seen)
    closed.add_done_callback(_seen)
    closed.add_done_callback(wake)
    try:
        yield
    finally:
        closed.remove_done_callback(wake)


def _seen(closed: asyncio.Future[None]) -> None:
    """Keep asyncio from logging that nobody asked how an idle connection ended."""
    if not closed.cancelled():
        closed.exception()


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read what follows the last event, so that the connection can serve the next call."""
    import aiohttp

    content = response.content
    if content.at_eof():
        return
    timer = asyncio.get_running_loop().call_later(LAST_WORDS, response.close)
    try:
        while await content.readany():
            pass
    except (aiohttp.ClientError, OSError):
        pass  # the answer is whole all the same
    finally:
        timer.cancel()


def error_in(data: bytes) -> tuple[str, str]:
    """Code and message of an error body, in any of the shapes vendors use."""
    import msgspec

    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return "", ""
    return error_of(body)


def error_of(body: Any) -> tuple[str, str]:
    """Code and message of a decoded error body."""
    if isinstance(body, list) and len(body) == 1:  # Google's
        body = body[0]
    found = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(found, str):
        return "", found
    if not isinstance(found, dict):
        return "", ""
    message = found.get("message") or found.get("msg") or found.get("detail") or ""
    return str(found.get("code") or found.get("type") or ""), str(message)


def _retry_after(milliseconds: str | None, value: str | None) -> float | None:
    """Seconds, from a number or an HTTP date (RFC 9110, 10.2.3), or from OpenAI's own header."""
    with contextlib.suppress(TypeError, ValueError):
        return _seconds(float(milliseconds or "") / 1000)
    if not value:
        return None
    with contextlib.suppress(ValueError):
        return _seconds(float(value))
    try:
        return _seconds(email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _seconds(number: float) -> float | None:
    return max(0.0, number) if math.isfinite(number) else None


def _origin(url: str) -> str:
    """Scheme, host and port, without a user or password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


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
