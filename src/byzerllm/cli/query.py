"""``byzerllm query``: one question, one answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from byzerllm.cli.choice import choose, generation_settings, model_options
from byzerllm.cli.command import Command
from byzerllm.errors import ConfigError


@click.command("query", cls=Command, short_help="Ask a model one question.")
@click.option(
    "--model",
    required=True,
    metavar="NAME",
    help='One that "byzerllm models" lists; with --model_path or a hosted type any name.',
)
@click.option("--query", required=True, metavar="TEXT", help="The question; - reads it from stdin.")
@click.option(
    "--template",
    default="auto",
    show_default=True,
    help="How to talk to a text-format model: auto, or a template's name such as qwen.",
)
@model_options
@click.option(
    "--output_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the answer there instead of printing it.",
)
def command(
    model: str,
    query: str,
    template: str,
    model_path: str,
    model_type: str,
    infer_params: tuple[tuple[str, str], ...],
    fetch: bool,
    temperature: float | None,
    max_length: int | None,
    output_file: Path | None,
) -> None:
    """Deploy a model in this process, ask it one question, print the answer."""
    from byzerllm.cli.answering import answer
    from byzerllm.cli.screen import Screen

    if output_file is not None and not output_file.absolute().parent.is_dir():
        raise click.UsageError(f"The folder of --output_file {output_file} does not exist")
    if query == "-":
        query = _standard_input()
    if not query.strip():
        raise click.UsageError("--query is empty; give it the question")
    named = bool(model_path) or model_type.startswith("saas/")
    choice = choose(
        model,
        model="" if named else model,
        model_path=model_path,
        model_type=model_type,
        infer_params=infer_params,
    )
    screen = Screen()
    llm = choice.deploy(screen, fetch=fetch)
    llm.setup_template(choice.name, template)
    spoken = answer(
        llm,
        [{"role": "user", "content": query}],
        generation_settings(temperature, max_length),
        screen,
        show=output_file is None,
    )
    if output_file is not None:
        _write(output_file, spoken.text)
    if screen.shows or output_file is not None:
        screen.note(f"({spoken.figures})")


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeError as error:
        raise ConfigError(f"The question is not UTF-8 text: {error}") from error


def _write(file: Path, text: str) -> None:
    """Appears whole or not at all."""
    if not text.endswith("\n"):
        text += "\n"
    try:
        if file.exists() and not file.is_file():  # /dev/stdout, a named pipe
            file.write_text(text, "utf-8")
            return
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        fresh.write_text(text, "utf-8")
        fresh.replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
