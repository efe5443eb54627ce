"""What the person sees: decorated at a terminal, bare text through a pipe.

Answers go to standard output and everything else to standard error, so that
``byzerllm chat > answers.txt`` holds answers only.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.status import Status


class Screen:
    """The terminal, or what stands in for it."""

    def __init__(self) -> None:
        self.person = is_terminal(sys.stdin)
        """A person types, rather than a file or a program."""
        self.shows = is_terminal(sys.stdout)
        """A person reads the answers."""
        self.notes = is_terminal(sys.stderr)

    @property
    def can_ask(self) -> bool:
        """Someone would see a question and can answer it."""
        return self.person and self.notes

    def write(self, text: str) -> None:
        """A piece of an answer; control characters stay out of terminals."""
        if self.shows:
            from byzerllm.human.show import printable

            text = printable(text.replace("\r\n", "\n"))
        # Not click.echo: it takes escape sequences out of what goes to a pipe or a file.
        sys.stdout.write(text)
        sys.stdout.flush()

    def think(self, text: str) -> None:
        """A piece of what a model thinks before it answers."""
        from byzerllm.human.show import printable

        click.secho(printable(text.replace("\r\n", "\n")), err=True, dim=True, nl=False)

    def note(self, text: str) -> None:
        """A line beside the conversation: for a person only."""
        if self.person:
            self.tell(text)

    def tell(self, text: str) -> None:
        """A line that is no answer: on standard error, dim at a terminal."""
        sys.stdout.flush()
        click.secho(text, err=True, dim=True)

    def complain(self, problem: BaseException | str) -> None:
        """An error that does not end the program."""
        sys.stdout.flush()
        click.secho(error_line(str(problem)), err=True, fg="red")

    def confirm(self, question: str) -> bool:
        """Ask for yes or no; Enter means yes, the end of input no."""
        click.echo(f"{question} [Y/n] ", err=True, nl=False)
        try:
            return input().strip().lower() in ("", "y", "yes")
        except EOFError:
            click.echo(err=True)
            return False

    @contextmanager
    def waiting(self, text: str) -> Iterator[Wait]:
        """Show that something goes on, while it does."""
        wait = Wait(shown=self.notes)
        wait.update(text)
        try:
            yield wait
        finally:
            wait.stop()


class Wait:
    """A line with a spinner on standard error, gone when stopped. Without a terminal: nothing."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._status: Status | None = None

    def update(self, text: str) -> None:
        """Show this text from now on."""
        if not self._shown:
            return
        if self._status is not None:
            self._status.update(_plain(text))
            return
        from rich.console import Console

        sys.stdout.flush()
        self._status = Console(stderr=True).status(_plain(text))
        self._status.start()

    def stop(self) -> None:
        """Take the line away. Safe to repeat."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def _plain(text: str) -> Any:
    from rich.text import Text  # rich would read [words] as markup

    return Text(text, style="dim", no_wrap=True, overflow="ellipsis")


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


_PAIR = re.compile(r"([\w.-]+)=([^\s'\",]+)")


def error_line(message: str) -> str:
    """An error as one line, with the values of keys that look like credentials masked."""
    from byzerllm.human.show import masked, printable

    def mask(pair: re.Match[str]) -> str:
        return f"{pair[1]}={masked(pair[2], pair[1])}"

    return printable(f"error: {_PAIR.sub(mask, ' '.join(message.split()))}")


def columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Rows as lines with their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def megabytes(size: int) -> str:
    """A size as people read it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size, 0) / 1e6:.0f} MB"
