"""What all commands have in common: how flags are read, and ``--debug``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click

SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    # --model_path and --model-path are the same flag, in every command.
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "max_content_width": 100,
}
SEVERAL = ("--infer-params",)
"""Flags that take all the ``key=value`` words behind them."""

_PAIR = re.compile(r"[A-Za-z_][\w.-]*=")


class Command(click.Command):
    """A command that knows ``--debug`` and flags with several values."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(debug_option())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))


class Group(click.Group):
    """A command with commands of its own."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(debug_option())


def debug_option() -> click.Option:
    # app.run looks for the word itself, since it has to know before anything is parsed.
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        help="Show what goes on inside, and where an error comes from.",
    )


def spread(args: Iterable[str]) -> list[str]:
    """Write ``--infer_params a=1 b=2`` as ``--infer_params a=1 --infer_params b=2``.

    click knows flags with one value, or a fixed number of them.
    """
    spread_out: list[str] = []
    words = iter(args)
    flag = ""
    for word in words:
        name, equals, _ = word.partition("=")
        if word == "--":
            return [*spread_out, word, *words]
        if name.replace("_", "-") in SEVERAL:
            flag = name
            spread_out.append(word)
            if not equals:
                spread_out += list(next_word(words))
        elif flag and _PAIR.match(word):
            spread_out += [flag, word]
        else:
            flag = ""
            spread_out.append(word)
    return spread_out


def next_word(words: Iterable[str]) -> Iterable[str]:
    """The next word, if there is one."""
    for word in words:
        yield word
        return
