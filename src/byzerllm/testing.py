"""A real engine whose answers are written in advance, for tests of programs that call models.

::

    model = ScriptedModel(["Berlin."])
    llm = llm_for(model)
    assert llm.chat_oai("Name the capital of Germany.")[0].output == "Berlin."
    assert "Germany" in model.requests[0].text
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from byzerllm.client import ByzerLLM
from byzerllm.errors import CallError
from byzerllm.types.engine import Engine, StreamItem
from byzerllm.types.records import Chunk, Generate, Message, Reply, Usage
from byzerllm.types.sampling import Sampling

Line = str | Sequence[str] | Reply | Exception | Callable[[Generate], Any]
"""One answer: a text, the pieces of a streamed text, a reply, an error to raise, or a function
of the request that gives one of these."""

_names = itertools.count(1)


class ScriptedModel(Engine):
    """Answers from a script.

    Args:
        script: the answers in order; a single text or function answers every request.
        message_format: take messages (else one text, as models without a chat format do).
        delay: seconds before each piece.
        meta: entries that go over those of ``get_meta``.
        concurrency: how many calls it takes at once.
    """

    name = "scripted"

    def __init__(
        self,
        script: Line | list[Line] = "",
        *,
        message_format: bool = True,
        delay: float = 0.0,
        meta: Mapping[str, Any] | None = None,
        concurrency: int | None = None,
    ) -> None:
        self._script = list(script) if isinstance(script, list) else None
        self._always = None if isinstance(script, list) else script
        self._message_format = message_format
        self._delay = delay
        self._meta = dict(meta or {})
        self._lock = threading.Lock()
        if concurrency is not None:
            self.concurrency = concurrency
        self.requests: list[Generate] = []
        """The generations it was asked for, as they arrived."""
        self.settings: list[Sampling] = []
        """How each was to be generated."""
        self.running = 0
        """Generations under way now."""
        self.closed = False

    # -- the script -------------------------------------------------------------------------

    def _next(self, request: Generate, sampling: Sampling) -> list[str] | Reply:
        with self._lock:
            self.requests.append(request)
            self.settings.append(sampling)
            if self._script is None:
                line: Any = self._always
            elif self._script:
                line = self._script.pop(0)
            else:
                raise CallError(
                    f"The script of this model is over after {len(self.requests) - 1} answers"
                )
        if callable(line):
            line = line(request)
        if isinstance(line, Exception):
            raise line
        if isinstance(line, Reply):
            return line
        return re.findall(r"\S+\s*|\s+", line) if isinstance(line, str) else list(line)

    async def stream(self, request: Generate, sampling: Sampling) -> AsyncIterator[StreamItem]:
        line = self._next(request, sampling)
        pieces = [line.text] if isinstance(line, Reply) else line
        if sampling.response_prefix:
            pieces = [sampling.response_prefix, *pieces]
        self.running += 1
        try:
            for number, piece in enumerate(pieces):
                if number == sampling.max_tokens:
                    break
                if self._delay:
                    await asyncio.sleep(self._delay)
                yield Chunk(text=piece)
        finally:
            self.running -= 1
        if isinstance(line, Reply):
            yield Chunk(
                reasoning=line.reasoning,
                finish_reason=line.finish_reason or "stop",
                usage=line.usage,
            )
            return
        count = min(
            len(pieces), len(pieces) if sampling.max_tokens is None else sampling.max_tokens
        )
        yield Chunk(
            finish_reason="stop" if count == len(pieces) else "length",
            usage=Usage(len(_words(request.text)), count),
        )

    # -- the other abilities ----------------------------------------------------------------

    async def meta(self) -> dict[str, Any]:
        return {
            "model_deploy_type": "proprietary",
            "backend": self.name,
            "support_stream": True,
            "support_chat_template": True,
            "message_format": self._message_format,
            "support_assistant_prefix": True,
            "max_model_len": 8192,
            "architectures": ["Scripted"],
            "model_name": self.name,
            "embedding_mode": False,
            **self._meta,
        }

    async def embed(self, texts: list[str], params: Mapping[str, Any]) -> Reply:
        vectors = [[byte / 255 for byte in hashlib.sha256(t.encode()).digest()[:8]] for t in texts]
        return Reply(vectors, usage=Usage(sum(len(_words(text)) for text in texts)))

    async def rerank(self, pairs: list[tuple[str, str]], params: Mapping[str, Any]) -> Reply:
        return Reply([_overlap(query, passage) for query, passage in pairs])

    async def tokenize(self, text: str) -> list[int]:
        return [int(hashlib.sha256(word.encode()).hexdigest()[:4], 16) for word in _words(text)]

    async def render_chat(self, messages: list[Message]) -> str:
        lines = [f"<{message['role']}>{message['content']}" for message in messages]
        return "\n".join([*lines, "<assistant>"])

    async def close(self) -> None:
        self.closed = True


def llm_for(model: Engine, **options: Any) -> ByzerLLM:
    """A client with this engine deployed under a fresh name, and set as all its defaults."""
    name = f"test-{next(_names)}"
    llm = ByzerLLM(**options)
    llm.deploy("", model, name)
    llm.setup_default_model_name(name)
    llm.setup_default_emb_model_name(name)
    llm.setup_default_re_rank_model_name(name)
    return llm


def _words(text: str) -> list[str]:
    return text.split()


def _overlap(query: str, passage: str) -> float:
    asked, said = set(_words(query.lower())), set(_words(passage.lower()))
    return len(asked & said) / max(1, len(asked))
