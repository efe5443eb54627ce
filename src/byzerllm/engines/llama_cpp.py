"""llama.cpp: GGUF models on this machine, many requests at once, in a child process.

The child runs llama.cpp's own server (``llama_server.py``) on a UNIX socket. Everything is
streamed inside, since only a stream can be cancelled, and the number of calls never exceeds
the server's slots, since what waits inside it cannot be cancelled either.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm.config import usable_cores
from byzerllm.engines.child import Child
from byzerllm.engines.gguf import POOLINGS, Header, read_header
from byzerllm.engines.http import Http
from byzerllm.engines.openai_wire import OpenAIWire, decode, encode
from byzerllm.errors import (
    ConfigError,
    DeployError,
    EngineDied,
    LengthError,
    ProviderError,
    ProviderUnreachable,
    StreamError,
    Unsupported,
)
from byzerllm.types.engine import Engine, StreamItem
from byzerllm.types.records import Generate, Message, Reply
from byzerllm.types.sampling import Sampling, truth

if TYPE_CHECKING:
    import aiohttp

SERVER = Path(__file__).with_name("llama_server.py")
PROMPT_BATCH = 256
"""Prompt tokens read at a time: a cancelled call stops at the next multiple of it."""
SPIN_COUNT = "1000"
"""How long llama.cpp's threads spin for each other before they sleep. As long as by default,
one other busy program takes all speed away (95 tokens/s to 2, measured on 2 cores); so short,
it costs nothing on an idle machine and leaves 27."""
DEFAULT_SLOTS = 8
LARGEST_DEFAULT_CONTEXT = 16384
"""Tokens held for all slots together unless ``n_ctx`` says otherwise (it costs memory)."""
LARGEST_DEFAULT_TEXT = 2048
"""Tokens of one text that a model for vectors or scores, which cannot read it in batches, takes
unless ``n_batch`` says otherwise (memory grows with its square)."""

# What a request may fail with when the child behind it has died.
_LOST = (ProviderError, ProviderUnreachable, StreamError, OSError)
_LARGEST_NUMBER = 1 << 24
_COUNT = re.compile(r"\((\d+) tokens\)")
_RENAMED = {"repetition_penalty": "repeat_penalty", "n_probs": "top_logprobs"}
_SETTINGS = frozenset(
    {
        "n_ctx",
        "n_parallel",
        "n_threads",
        "n_batch",
        "n_gpu_layers",
        "cache_ram_mib",
        "pooling",
        "chat_template",
        "message_format",
        "start_timeout",
    }
)
_ROLES = frozenset({"system", "user", "assistant", "tool"})
_made: weakref.WeakSet[LlamaCpp] = weakref.WeakSet()
"""The engines of this process, which share its cores."""


class LlamaCpp(OpenAIWire):
    """One GGUF file."""

    name = "llama_cpp"
    concurrency = DEFAULT_SLOTS
    assistant_prefix = True
    chat_path = "/v1/chat/completions"
    completions_path = "/v1/completions"
    embeddings_path = "/v1/embeddings"
    rerank_path = "/v1/rerank"
    accepts = frozenset(
        {
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "typical_p",
            "seed",
            "stop",
            "presence_penalty",
            "frequency_penalty",
            "repetition_penalty",
            "ignore_eos",
            "logprobs",
            "top_logprobs",
            "stop_token_ids",
            "logit_bias",
            "n",
            "cache_prompt",
            "response_format",
            "grammar",
        }
    )

    def __init__(self, model_path: str, infer_params: Mapping[str, Any], slots: int | None) -> None:
        self.model_path = str(Path(model_path).expanduser())
        settings = _settings(infer_params)
        self._message_format = truth(settings.pop("message_format", True))
        start_timeout = float(settings.pop("start_timeout", 600))
        self._settings: dict[str, Any] = {
            "model_path": str(Path(self.model_path).absolute()),
            "n_parallel": _whole(settings, "n_parallel", slots or DEFAULT_SLOTS, 1),
            "n_threads": _whole(settings, "n_threads", 0, 0),
            "n_ctx": _whole(settings, "n_ctx", 0, 0),
            "n_batch": _whole(settings, "n_batch", 0, 0),
            "n_gpu_layers": _whole(settings, "n_gpu_layers", -1, -1),
            "cache_ram_mib": _whole(settings, "cache_ram_mib", 256, 0),
            "pooling": settings.get("pooling"),
            "chat_template": settings.get("chat_template", ""),
        }
        self._settings["http_threads"] = self._settings["n_parallel"] + 4
        self.concurrency = self._settings["n_parallel"]
        self._child = Child(
            str(SERVER),
            self._settings,
            start_timeout=start_timeout,
            environment={"GOMP_SPINCOUNT": SPIN_COUNT},
        )
        self._header = Header()
        self._context = 0
        self._vocabulary = 0
        self._texts_of_ids: dict[int, str] = {}
        _made.add(self)
        self._generates = True
        self.http = Http(
            "http://llama.cpp",
            name=self.name,
            timeout=None,
            connector=self._connector,
            where=lambda: self._child.socket,
        )

    def _connector(self) -> aiohttp.BaseConnector:
        import aiohttp

        # The server closes the connection after every stream, so none is kept for the next.
        return aiohttp.UnixConnector(self._child.socket, limit=0, force_close=True)

    # -- life -------------------------------------------------------------------------------

    async def load(self) -> None:
        self._header = read_header(self.model_path)
        self._prepare()
        try:
            import xllamacpp  # noqa: F401  # only to say early and clearly that it is missing
        except ImportError as error:
            raise ConfigError(
                "The llama_cpp engine needs: pip install 'byzerllm[local]'"
            ) from error
        await self._child.ready()
        listed = await self._get("/v1/models")
        self._vocabulary = int(listed["data"][0]["meta"]["n_vocab"])
        await self._answer_once()

    def _prepare(self) -> None:
        header, settings = self._header, self._settings
        if settings["pooling"] is None:
            # Pooled in another way than in training, vectors mean little, and nothing says so.
            settings["pooling"] = header.pooling or "mean"
        if settings["pooling"] not in ("", *POOLINGS):
            raise ConfigError(
                f"backend.pooling={settings['pooling']!r}; use one of {', '.join(POOLINGS)}"
            )
        if settings["pooling"] == "rank" and not header.is_reranker:
            raise ConfigError(
                f"{self.model_path} has no classifier, so its rerank scores would mean nothing; "
                "deploy a reranker's GGUF with backend.pooling=rank"
            )
        if not settings["n_ctx"]:
            known = header.context_length or 4096
            settings["n_ctx"] = max(
                min(known * settings["n_parallel"], LARGEST_DEFAULT_CONTEXT), known
            )
        self._context = min(settings["n_ctx"], header.context_length or settings["n_ctx"])
        self._generates = header.generates and settings["pooling"] != "rank"
        if not settings["n_batch"]:
            whole = min(self._context, LARGEST_DEFAULT_TEXT)
            settings["n_batch"] = PROMPT_BATCH if self._generates else whole
        if not self._generates:
            self._context = min(self._context, settings["n_batch"])
        if not settings["n_threads"]:
            # Engines spin while they wait: two with full thread counts halve each other.
            settings["n_threads"] = max(1, usable_cores() // len(_made))
        self._child.update(settings)

    async def _answer_once(self) -> None:
        """A deployment counts only if the model can answer."""
        if self._settings["pooling"] == "rank":
            await self.rerank([("a", "b")], {})
        elif not self._generates:
            await self.embed(["a"], {})
        else:
            request = Generate(self.model, prompt="a")
            await self.generate(request, Sampling({"max_tokens": 1, "temperature": 0}))

    async def close(self) -> None:
        _made.discard(self)
        await super().close()
        await self._child.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, while it runs."""
        return self._child.pid

    # -- abilities --------------------------------------------------------------------------

    async def meta(self) -> dict[str, Any]:
        template = bool(self._header.chat_template or self._settings["chat_template"])
        return {
            "model_deploy_type": "proprietary",
            "backend": self.name,
            "support_stream": self._generates,
            "support_chat_template": template,
            "message_format": template and self._message_format,
            "support_assistant_prefix": self._generates,
            "max_model_len": self._context,
            "architectures": [self._header.architecture],
            "model_name": self._header.name or Path(self.model_path).stem,
            "embedding_mode": not self._generates,
        }

    def body(self, request: Generate, sampling: Sampling, *, stream: bool) -> dict[str, Any]:
        for message in request.messages or ():
            # The server takes any role and prints it into the prompt.
            if message.get("role") not in _ROLES:
                raise ConfigError(
                    f"llama_cpp knows no role {message.get('role')!r}; use one of "
                    f"{', '.join(sorted(_ROLES))}"
                )
        body = super().body(request, sampling, stream=stream)
        for ours, theirs in _RENAMED.items():
            if ours in body:
                body[theirs] = body.pop(ours)
        body["return_progress"] = True
        return body

    async def generate(self, request: Generate, sampling: Sampling) -> Reply:
        return await Engine.generate(self, request, sampling)

    async def stream(self, request: Generate, sampling: Sampling) -> AsyncIterator[StreamItem]:
        if not self._generates:
            does = "emb_rerank" if self._settings["pooling"] == "rank" else "emb"
            raise Unsupported(f"{self.model_path} writes no text; it is a model for {does}")
        if sampling.max_tokens == 0:
            raise ConfigError("max_length=0 leaves nothing to generate; ask for at least 1 token")
        await self._alive()
        sampling = await self._with_stop_texts(sampling)
        try:
            async for item in super().stream(request, sampling):
                yield item
        except _LOST as error:
            raise await self._blame(error) from error

    async def _with_stop_texts(self, sampling: Sampling) -> Sampling:
        """Stop token ids as stop texts, since the server knows only those.

        Ids beyond the vocabulary (a template made for another model names some) never come.
        """
        ids = sampling.values.get("stop_token_ids")
        if ids is None:
            return sampling
        values = {key: value for key, value in sampling.values.items() if key != "stop_token_ids"}
        texts = list(values.get("stop") or [])
        for token in ids:
            if 0 <= token < self._vocabulary:
                if token not in self._texts_of_ids:
                    self._texts_of_ids[token] = await self.detokenize([token])
                texts += [self._texts_of_ids[token]] if self._texts_of_ids[token] else []
        return replace(sampling, values={**values, "stop": texts} if texts else values)

    async def embed(self, texts: list[str], params: Mapping[str, Any]) -> Reply:
        if self._settings["pooling"] in ("", "none", "rank"):
            raise Unsupported(
                f"This model was deployed with backend.pooling={self._settings['pooling']!r}, "
                "which gives no embeddings; use mean, cls or last"
            )
        await self._alive()
        try:
            return await super().embed(texts, params)
        except _LOST as error:
            raise await self._blame(error) from error

    async def rerank(self, pairs: list[tuple[str, str]], params: Mapping[str, Any]) -> Reply:
        if self._settings["pooling"] != "rank":
            raise Unsupported(
                "This model was not deployed as a reranker; deploy a reranker's GGUF with "
                "infer_params={'backend.pooling': 'rank'}"
            )
        await self._alive()
        try:
            return await super().rerank(pairs, params)
        except _LOST as error:
            raise await self._blame(error) from error

    async def tokenize(self, text: str) -> list[int]:
        answer = await self._ask(
            "/tokenize", {"content": text, "add_special": True, "parse_special": True}
        )
        ids: list[int] = answer["tokens"]
        return ids

    async def detokenize(self, ids: list[int]) -> str:
        return str((await self._ask("/detokenize", {"tokens": ids}))["content"])

    async def render_chat(self, messages: list[Message]) -> str:
        if not (self._header.chat_template or self._settings["chat_template"]):
            raise Unsupported(f"{self.model_path} carries no chat template")
        return str((await self._ask("/apply-template", {"messages": messages}))["prompt"])

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        await self._alive()
        try:
            return decode(await self.http.post(path, encode(body)), self.name)
        except _LOST as error:
            raise await self._blame(error) from error

    async def _get(self, path: str) -> dict[str, Any]:
        try:
            return decode(await self.http.get(path), self.name)
        except _LOST as error:
            raise await self._blame(error) from error

    # -- the child --------------------------------------------------------------------------

    async def _alive(self) -> None:
        if self._child.alive:
            return
        try:
            await self._child.ready()
        except DeployError as error:
            raise EngineDied(f"The llama.cpp process did not start again: {error}") from error

    async def _blame(self, error: Exception) -> Exception:
        """What is behind a failed request: the child's death, or a text that is too long."""
        if isinstance(error, ProviderError) and error.status:
            return self._too_long(str(error)) or error
        if await self._child.ended():
            return EngineDied("The llama.cpp process ended during the call; it is started again")
        return error

    def _too_long(self, said: str) -> LengthError | None:
        """What the server says of a text that does not fit, with the setting that helps."""
        of_vectors, of_chat = "too large to process" in said, "context size" in said
        if not of_vectors and not of_chat:
            return None
        name = "n_batch" if of_vectors else "n_ctx"
        limit = self._settings["n_batch"] if of_vectors else self._context
        hint = f", or deploy with a larger backend.{name}"
        most = self._header.context_length
        count = _COUNT.search(said)
        size = f"has {count[1]} tokens" if count else "is too long"
        return LengthError(
            f"The text {size}, and the model reads {limit} at once; shorten it"
            + (hint if limit < most else "")
        )


def _whole(settings: Mapping[str, Any], name: str, default: int, least: int) -> int:
    """A whole number, also as text from a command line."""
    value = settings.get(name, default)
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = least - 1
    if number < least or number > _LARGEST_NUMBER:
        raise ConfigError(f"{name}={value!r}; a whole number of at least {max(1, least)} was due")
    return number


def _settings(infer_params: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings out of ``backend.x`` and the plain llama.cpp keywords.

    Raises:
        ConfigError: a keyword that this engine does not know.
    """
    settings: dict[str, Any] = {}
    for key, value in infer_params.items():
        if key.startswith("saas."):
            continue
        name = key.removeprefix("backend.")
        if name not in _SETTINGS:
            raise ConfigError(
                f"The llama_cpp engine does not know {key!r} in infer_params; it knows "
                f"{', '.join(sorted(_SETTINGS))}"
            )
        settings[name] = value
    return settings
