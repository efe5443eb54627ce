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
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from byzerllm.engines.http import Http, system_proxy
from byzerllm.engines.openai_wire import OpenAIWire, decode
from byzerllm.errors import ConfigError, ProviderError
from byzerllm.types.sampling import truth

if TYPE_CHECKING:
    import aiohttp

# What a provider without a list of models answers when asked for it.
_NO_MODEL_LIST = frozenset({400, 404, 405, 501})


class OpenAICompatible(OpenAIWire):
    """A hosted model behind an address and a key."""

    base_url = ""
    api_key_env = ""
    default_model = ""
    concurrency = 1000
    settings = frozenset(
        {
            "api_key",
            "model",
            "base_url",
            "api_base",
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
        self.model = str(given.get("model") or self.default_model)
        self.key = str(given.get("api_key") or os.environ.get(self.api_key_env, ""))
        if not self.key:
            raise ConfigError(
                f"{self.name} needs a key: infer_params={{'saas.api_key': …}} or the "
                f"environment variable {self.api_key_env}"
            )
        if any(ord(letter) < 33 or ord(letter) > 126 for letter in self.key):
            raise ConfigError(f"The key of {self.name} has spaces or letters that no key has")
        address = str(given.get("base_url") or given.get("api_base") or self.base_url)
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise ConfigError(f"saas.base_url={address!r} is not an http(s) address")
        self.max_retries = int(given.get("max_retries", 10))
        self.max_output_tokens = given.get("max_output_tokens")
        self.stream_usage = truth(given.get("stream_usage", True))
        self._check = truth(given.get("check", True))
        self._local_address = str(given.get("local_address") or "")
        self._verify = truth(given.get("https_verify", True))
        headers = given.get("headers") or {}
        if isinstance(headers, str):
            headers = json.loads(headers)
        self.http = Http(
            address,
            name=self.name,
            headers={**self.auth_headers(), **headers},
            secrets=(self.key, *map(str, headers.values())),
            timeout=float(given.get("timeout") or 600),
            connector=self._connector,
            proxy=_proxy(given.get("proxies"), address),
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

    async def load(self) -> None:
        """Ask for the list of models, which costs nothing: a dead address or a wrong key shows."""
        if not self._check:
            return
        try:
            listed = decode(await self.http.get("/models"), self.name)
        except ProviderError as error:
            if error.status in _NO_MODEL_LIST:
                return
            raise
        # The model need not be in the list: aliases and fine-tuned models often are not.
        if not isinstance(listed.get("data"), list):
            raise ProviderError(f"{self.name} answered its list of models with {str(listed)[:200]}")

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
            meta["num_output"] = int(self.max_output_tokens)
        return meta


def _proxy(proxies: Any, address: str) -> str | None:
    """The proxy to use: what ``saas.proxies`` says, else what the environment says."""
    if not proxies:
        return system_proxy(address)
    if isinstance(proxies, str):
        if not proxies.lstrip().startswith("{"):
            return proxies
        proxies = json.loads(proxies)
    scheme = urlsplit(address).scheme
    found = proxies.get(scheme) or proxies.get(f"{scheme}://") or proxies.get("all://")
    return str(found) if found else None
