"""A streamed reply as users read it: ``(text, metadata)``, cumulative or piece by piece."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from byzerllm.errors import StreamError
from byzerllm.types.data import SingleOutputMeta
from byzerllm.types.records import Chunk

HELD_BACK = 64
"""Characters kept back from a piecewise reader where a clean function may still change them."""


class Presenter:
    """Turns chunks into ``(text, SingleOutputMeta)`` pairs.

    The last pair's metadata holds the totals. They arrive behind the last text: piecewise
    readers get them with a last, empty text; for others they are filled in to the last pair.
    Times are in seconds.
    """

    def __init__(self, clean: Callable[[str], str] | None, *, delta_mode: bool) -> None:
        self._clean = clean
        self._settled: Callable[[str], str] | None = getattr(clean, "settled", None)
        self._delta = delta_mode
        self._raw = ""
        self._shown = ""
        self._any = False
        self._totals_seen: tuple[Any, ...] = ()
        self._last = SingleOutputMeta()
        self._totals = SingleOutputMeta()
        self._started = time.perf_counter()

    def feed(self, chunk: Chunk) -> Iterator[tuple[str, SingleOutputMeta]]:
        """What a chunk lets the reader see now."""
        if chunk.index:
            return  # further choices (n > 1) are for whole replies
        self._note(chunk)
        if chunk.text:
            self._raw += chunk.text
        if self._delta:
            text = chunk.text if self._clean is None else self._stable()[len(self._shown) :]
            if text or chunk.reasoning:
                self._shown += text
                yield self._pair(text, chunk.reasoning)
            return
        text = self._raw if self._clean is None else self._cleaned()
        if text and text != self._shown:
            self._shown = text
            yield self._pair(text, self._totals.reasoning_content)

    def finish(self) -> Iterator[tuple[str, SingleOutputMeta]]:
        """What is left when the stream has ended."""
        final = self._raw if self._clean is None else self._clean(self._raw)
        rest = final
        if self._delta:
            if not final.startswith(self._shown):
                raise StreamError(
                    "The clean function took back text that was streamed already; "
                    "read this stream without delta_mode"
                )
            rest = final[len(self._shown) :]
        news = self._delta and self._totals_now() != self._totals_seen
        if final != self._shown or not self._any or news:
            yield self._pair(rest, "" if self._delta else self._totals.reasoning_content)
        # Counts arrive behind the last text: they complete the pair that was yielded last.
        totals = self._totals.reasoning_content
        self._complete(self._last, self._last.reasoning_content if self._delta else totals)

    def _note(self, chunk: Chunk) -> None:
        totals = self._totals
        if not totals.first_token_time and (chunk.text or chunk.reasoning):
            totals.first_token_time = time.perf_counter() - self._started
        if chunk.reasoning:
            totals.reasoning_content += chunk.reasoning
        if chunk.finish_reason:
            totals.finish_reason = chunk.finish_reason
        if chunk.request_id:
            totals.extra_info["request_id"] = chunk.request_id
        if chunk.by != "model":
            totals.extra_info["by"] = chunk.by
        if chunk.usage is not None:
            totals.input_tokens_count = chunk.usage.input_tokens or 0
            totals.generated_tokens_count = chunk.usage.output_tokens or 0

    def _cleaned(self) -> str:
        assert self._clean is not None
        return self._clean(self._settled(self._raw) if self._settled else self._raw)

    def _stable(self) -> str:
        """The cleaned text, less what later text may still change."""
        assert self._clean is not None
        if self._settled is not None:
            return self._settled(self._raw)
        text = self._clean(self._raw)[:-HELD_BACK]
        return text if text.startswith(self._shown) else self._shown

    def _totals_now(self) -> tuple[Any, ...]:
        totals = self._totals
        return totals.input_tokens_count, totals.generated_tokens_count, totals.finish_reason

    def _pair(self, text: str, reasoning: str) -> tuple[str, SingleOutputMeta]:
        self._any = True
        self._totals_seen = self._totals_now()
        self._last = SingleOutputMeta()
        self._complete(self._last, reasoning)
        return text, self._last

    def _complete(self, meta: SingleOutputMeta, reasoning: str) -> None:
        totals = self._totals
        meta.input_tokens_count = totals.input_tokens_count
        meta.generated_tokens_count = totals.generated_tokens_count
        meta.reasoning_content = reasoning
        meta.finish_reason = totals.finish_reason
        meta.first_token_time = totals.first_token_time
        info: dict[str, Any] = dict(totals.extra_info)
        meta.extra_info = info
