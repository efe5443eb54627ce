"""What providers that speak the OpenAI wire have in common; a provider says only what differs.

::

    class CustomSaasAPI(OpenAICompatible):
        base_url = "https://api.example.com/v1"
        api_key_env = "EXAMPLE_API_KEY"
        default_model = "example-chat"
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

from byzerllm.engines.http import Http, system_proxy
from byzerllm.engines.openai_wire import OpenAIWire, decode_any
from byzerllm.errors import ConfigError, ProviderError
from byzerllm.types.records import Generate
from byzerllm.types.sampling import Sampling, truth

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

CHECK_TIMEOUT = 30.0
"""Seconds a provider has for the question with which deploying looks whether it is there."""

# What a provider without a list of models answers when asked for it.
_NO_MODEL_LIST = frozenset({400, 404, 405, 501})
_NOT_FOR_REASONING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


class OpenAICompatible(OpenAIWire):
    """A hosted model behind an address and a key."""

    base_url = ""
    api_key_env = ""
    default_model = ""
    is_reasoning = False
    """True for models that refuse to be told how to sample."""
    concurrency = 1000
    settings = frozenset(
        {
            "api_key",
            "model",
            "base_url",
            "api_base",
            "api_type",
            "api_version",
            "timeout",
            "max_retries",
            "proxies",
            "local_address",
            "https_verify",
            "headers",
            "stream_usage",
            "max_output_tokens",
            "is_reasoning",
            "check",
        }
    )
    """The ``saas.`` keys that are understood; others are refused."""

    def __init__(self, infer_params: Mapping[str, Any]) -> None:
        given = self._read(infer_params)
        provider = type(self).__module__.rpartition(".")[2]
        self.name = f"saas/{provider}"
        self.key = self._key(given.get("api_key"))
        address = _address(given, self.base_url)
        self.model = str(given.get("model") or self.default_model)
        self.max_retries = _setting(given, "max_retries", _count, 10)
        self.max_output_tokens = _setting(given, "max_output_tokens", _count, 0)
        self.stream_usage = _setting(given, "stream_usage", truth, True)
        self.is_reasoning = _setting(given, "is_reasoning", truth, self.is_reasoning)
        self._check = _setting(given, "check", truth, True)
        self._local_address = str(given.get("local_address") or "")
        self._verify = _setting(given, "https_verify", truth, True)
        headers: dict[str, str] = _setting(given, "headers", _headers, {})
        proxy = _setting(given, "proxies", lambda value: _proxy(value, address), None)
        proxy = proxy or system_proxy(address)
        self.http = Http(
            address,
            name=self.name,
            headers=_merged(self.auth_headers(), headers),
            secrets=(self.key, *_secrets_of(headers, proxy)),
            timeout=_setting(given, "timeout", _seconds, 600.0),
            connector=self._connector,
            proxy=proxy,
        )

    def auth_headers(self) -> dict[str, str]:
        """How the key travels."""
        return {"Authorization": f"Bearer {self.key}"}

    def _read(self, infer_params: Mapping[str, Any]) -> dict[str, Any]:
        given = {}
        for key, value in infer_params.items():
            name = key.removeprefix("saas.")
            if not key.startswith("saas.") or name not in self.settings:
                known = ", ".join(f"saas.{name}" for name in sorted(self.settings))
                raise ConfigError(
                    f"{type(self).__module__} does not know {key!r}; it knows {known}"
                )
            given[name] = value
        return given

    def _key(self, given: Any) -> str:
        key = str(given or os.environ.get(self.api_key_env, "")).strip()
        if not key:
            raise ConfigError(
                f"{self.name} needs a key: infer_params={{'saas.api_key': …}} or the "
                f"environment variable {self.api_key_env}"
            )
        if any(ord(letter) < 33 or ord(letter) > 126 for letter in key):
            raise ConfigError(
                f"saas.api_key: the key of {self.name} has spaces or letters that no key has"
            )
        return key

    def _connector(self) -> aiohttp.BaseConnector:
        import aiohttp

        # The deployment's slots bound the number of calls; a second bound could only hang.
        return aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=60,
            ttl_dns_cache=300,
            local_addr=(self._local_address, 0) if self._local_address else None,
            ssl=self._verify,
        )

    def body(self, request: Generate, sampling: Sampling, *, stream: bool) -> dict[str, Any]:
        body = super().body(request, sampling, stream=stream)
        if self.is_reasoning:
            for name in _NOT_FOR_REASONING:
                body.pop(name, None)
        return body

    async def load(self) -> None:
        """Ask for the list of models, which costs nothing: a dead address or a wrong key shows."""
        if not self._check:
            return
        try:
            answer = await self.http.get("/models", timeout=CHECK_TIMEOUT)
        except ProviderError as error:
            if error.status in _NO_MODEL_LIST:
                return
            raise
        # The model need not be in the list: aliases and fine-tuned models often are not.
        listed = decode_any(answer, self.name, self.http.clean)
        if isinstance(listed, dict):
            listed = listed.get("data", listed.get("models"))
        if not isinstance(listed, list):
            shown = self.http.clean(answer[:200].decode(errors="replace"))
            raise ProviderError(
                f"{self.name} answered the question for its models with {shown}. "
                "Check saas.base_url"
            )

    async def meta(self) -> dict[str, Any]:
        embeds = "embedding" in self.model.lower()
        meta: dict[str, Any] = {
            "model_deploy_type": "saas",
            "backend": "saas",
            "support_stream": not embeds,
            "support_chat_template": False,
            "message_format": True,
            "support_assistant_prefix": self.assistant_prefix,
            "model_name": self.model,
            "embedding_mode": embeds,
            "max_retries": self.max_retries,
        }
        if self.max_output_tokens:
            meta["num_output"] = self.max_output_tokens
        return meta


def _setting(given: Mapping[str, Any], name: str, read: Callable[[Any], T], default: T) -> T:
    """One setting in its type; what is not given, or given as ``None`` or ``""``, is the default.

    Raises:
        ConfigError: it cannot be read, naming the key.
    """
    value = given.get(name)
    if value is None or value == "":
        return default
    try:
        return read(value)
    except (TypeError, ValueError, AttributeError) as error:
        # Headers and proxies may hold passwords: the value is not shown.
        raise ConfigError(f"saas.{name} cannot be read: {error}") from None


def _count(value: Any) -> int:
    number = int(value)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


def _seconds(value: Any) -> float:
    number = float(value)
    if not 0 < number < 1e9:
        raise ValueError(f"{number} is no number of seconds to wait")
    return number


def _address(given: Mapping[str, Any], default: str) -> str:
    """The base URL, with ``saas.api_version`` in its query."""
    address = str(given.get("base_url") or given.get("api_base") or default).strip()
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")
    except (ValueError, UnicodeError):  # a port that is no number, a name that is too long
        good = False
    if not good or "#" in address or any(letter.isspace() for letter in address):
        raise ConfigError(f"saas.base_url={address!r} is not an http(s) address")
    if parts.username or parts.password:
        raise ConfigError(
            "saas.base_url has a user or password in it; the key goes into saas.api_key"
        )
    if str(given.get("api_type") or "open_ai") not in ("open_ai", "openai"):
        raise ConfigError(
            f"saas.api_type={given['api_type']!r} is not spoken here; it is 'open_ai', or left out"
        )
    if given.get("api_version"):
        query = urlencode({"api-version": str(given["api_version"])})
        address += ("&" if parts.query else "?") + query
    return address


def _headers(value: Any) -> dict[str, str]:
    """Headers from a dictionary or its JSON text.

    Raises:
        ValueError, TypeError: they are none.
    """
    if isinstance(value, str):
        value = json.loads(value)
    headers = {str(name): str(text) for name, text in value.items()}
    for name, text in headers.items():
        if not name.isascii() or any(ord(letter) < 32 for letter in name + text):
            raise ValueError(f"the header {name!r} has letters that no header has")
    return headers


def _merged(ours: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Headers of both; a given one takes the place of ours, however it is spelt."""
    names = {name.lower() for name in given}
    return {**{name: text for name, text in ours.items() if name.lower() not in names}, **given}


def _secrets_of(headers: Mapping[str, str], proxy: str | None) -> list[str]:
    """What of given headers and of a proxy's address no message may show."""
    found = [word for text in headers.values() for word in text.split() if len(word) >= 8]
    password = urlsplit(proxy).password if proxy else None
    return [*found, password] if password else found


def _proxy(proxies: Any, address: str) -> str | None:
    """The proxy for this address out of ``saas.proxies``: one address, or one for each scheme.

    Raises:
        ValueError, TypeError, AttributeError: there is none to read.
    """
    if isinstance(proxies, str) and proxies.lstrip().startswith("{"):
        proxies = json.loads(proxies)
    found = proxies
    if not isinstance(proxies, str):
        scheme = urlsplit(address).scheme
        found = proxies.get(scheme) or proxies.get(f"{scheme}://") or proxies.get("all://")
    if not found:
        return None
    if urlsplit(str(found)).scheme not in ("http", "https"):
        raise ValueError("a proxy's address begins with http:// or https://")
    return str(found)
