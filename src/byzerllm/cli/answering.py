"""One question and its answer on the screen, piece by piece."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from byzerllm.events.payloads import AfterModel, BeforeModel, Progress

if TYPE_CHECKING:
    from byzerllm.cli.screen import Screen, Wait
    from byzerllm.client import ByzerLLM
    from byzerllm.events.hooks import Installable, On
    from byzerllm.types.records import Message, Reply


@dataclass
class Spoken:
    """An answer as it was shown."""

    text: str
    reply: Reply | None = None
    """Nothing where it was stopped."""

    @property
    def stopped(self) -> bool:
        return self.reply is None

    @property
    def figures(self) -> str:
        """How long it is and how fast it came, as far as that is known."""
        if self.reply is None:
            return "stopped"
        reply, usage = self.reply, self.reply.usage
        if reply.by != "model":
            return f"answered by: {reply.by}"
        count, seconds, first = usage.output_tokens, reply.seconds, reply.first_token_seconds
        parts = [] if count is None else [f"{count} tokens"]
        if count and count > 1 and seconds and first is not None and seconds > first:
            parts.append(f"{(count - 1) / (seconds - first):.0f} tokens/s")
        if first is not None:
            parts.append(f"first after {first:.2f} s")
        if usage.input_tokens:
            parts.append(f"prompt {usage.input_tokens}")
        if reply.finish_reason == "length":
            parts.append("cut off at --max_length")
        return ", ".join(parts)


class Watch:
    """Handlers that show what goes on until the answer begins, and keep the reply."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self.reply: Reply | None = None

    def install(self, on: On) -> None:
        on.before_model(role="observe")(self._sent)
        on.progress(self._reading)
        on.after_model(role="observe")(self._answered)

    def _sent(self, event: BeforeModel) -> None:
        # Observers run behind guards: a person who was asked has decided by now.
        self._wait.update("thinking …")

    def _reading(self, event: Progress) -> None:
        if event.done < event.total:
            self._wait.update(f"reading the prompt: {event.done} of {event.total} tokens")

    def _answered(self, event: AfterModel) -> None:
        self.reply = event.reply


def answer(
    llm: ByzerLLM,
    messages: Sequence[Message],
    settings: dict[str, Any],
    screen: Screen,
    *,
    bundles: Sequence[Installable] = (),
    show: bool = True,
    may_stop: bool = False,
) -> Spoken:
    """Ask the default model, show the answer while it comes, and give it back.

    Args:
        bundles: further handlers for this call.
        show: print it (else it is only given back).
        may_stop: Ctrl-C ends the answer instead of the program.
    """
    from byzerllm.cli.screen import Wait

    wait = Wait(shown=screen.notes)
    watch = Watch(wait)
    said: list[str] = []
    stream = cast(
        "Generator[tuple[str, Any], None, None]",
        llm.stream_chat_oai(
            list(messages), llm_config=settings, delta_mode=True, hooks=[watch, *bundles]
        ),
    )
    try:
        for piece, meta in stream:
            if not piece and not meta.reasoning_content:
                continue
            wait.stop()
            if meta.reasoning_content and screen.person and show:
                screen.think(meta.reasoning_content)
            said.append(piece)
            if show and piece:
                screen.write(piece)
    except KeyboardInterrupt:
        if not may_stop:
            raise
        watch.reply = None
    finally:
        wait.stop()
        stream.close()
    text = "".join(said)
    if show and not text.endswith("\n"):
        screen.write("\n")
    return Spoken(text, watch.reply)
