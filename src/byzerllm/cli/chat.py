"""``byzerllm chat``: talk to a model, or be one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from byzerllm.cli.choice import BUNDLED, choose, generation_settings, model_options
from byzerllm.cli.command import Command

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM
    from byzerllm.events.hooks import Installable
    from byzerllm.types.engine import StreamItem
    from byzerllm.types.records import Generate
    from byzerllm.types.sampling import Sampling


@click.command("chat", cls=Command, short_help="Talk to a model, or be one.")
@click.argument("model", default="")
@model_options
@click.option("--system", default="", metavar="TEXT", help="What the model is told first.")
@click.option("--human", is_flag=True, help="Be the model: you answer, no model is loaded.")
@click.option("--intercept", is_flag=True, help="Ask you before each call: answer, edit, send …")
def command(
    model: str,
    model_path: str,
    model_type: str,
    infer_params: tuple[tuple[str, str], ...],
    fetch: bool,
    temperature: float | None,
    max_length: int | None,
    system: str,
    human: bool,
    intercept: bool,
) -> None:
    """Talk to MODEL: a name that "byzerllm models" lists (smollm2 unless you say otherwise), or
    the path of a .gguf file.

    Without a terminal every line of standard input is a message. With --human or --intercept
    the line behind a message is then the answer to it.
    """
    from byzerllm.cli.lines import Lines
    from byzerllm.cli.screen import Screen
    from byzerllm.cli.session import Session

    screen = Screen()
    if human:
        if model or model_path or model_type or infer_params:
            raise click.UsageError(
                "--human takes the model's place, so name no model; --intercept steps in before one"
            )
        title, llm = "you answer, as the model would", person_as_model()
    else:
        if not (model or model_path or model_type.startswith("saas/")):
            model = BUNDLED
        choice = choose(
            "",
            model=model,
            model_path=model_path,
            model_type=model_type,
            infer_params=infer_params,
        )
        title, llm = choice.title, choice.deploy(screen, fetch=fetch)
    screen.note(f"{title}. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
    with Lines(screen) as lines:
        Session(
            llm,
            screen,
            lines,
            system=system,
            settings=generation_settings(temperature, max_length),
            bundles=person() if human or intercept else (),
        ).run()


def person() -> Sequence[Installable]:
    """The handlers that ask the person at the terminal."""
    from byzerllm.human import HumanModel

    return [HumanModel(surface="terminal")]


def person_as_model() -> ByzerLLM:
    """A client whose default model is an empty seat: only a person can answer for it."""
    from byzerllm.client import ByzerLLM
    from byzerllm.errors import Unsupported
    from byzerllm.types.engine import Engine

    class EmptySeat(Engine):
        name = "human"

        async def meta(self) -> dict[str, Any]:
            return {**await super().meta(), "message_format": True, "model_name": "human"}

        def stream(self, request: Generate, sampling: Sampling) -> AsyncIterator[StreamItem]:
            raise Unsupported(
                "With --human there is no model to send this to: type the answer yourself, or "
                "start anew with: byzerllm chat --intercept"
            )

    llm = ByzerLLM()
    llm.deploy("", EmptySeat, "human")
    return llm.setup_default_model_name("human")
