"""The program: its commands, and what becomes of their errors.

A command is a module with a ``command``, named in ``COMMANDS``. It loads when it is called or
listed, so a module imports no more than click before its command runs.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from importlib import import_module
from pathlib import Path

import click

from byzerllm.cli.command import SETTINGS, Group
from byzerllm.errors import ByzerError

COMMANDS = {
    "chat": "byzerllm.cli.chat",
    "query": "byzerllm.cli.query",
    "models": "byzerllm.cli.models",
    "doctor": "byzerllm.cli.doctor",
}
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


class Commands(Group):
    """Finds each command in its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name]).command
        return command


@click.group(cls=Commands, invoke_without_command=True, context_settings=SETTINGS)
@click.version_option(package_name="byzerllm", message="byzerllm %(version)s")
@click.pass_context
def program(ctx: click.Context) -> None:
    """Run, ask and watch language models, with a person in between where you want one."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(args: list[str]) -> int:
    """Run a command line; its exit code."""
    debug = "--debug" in args
    _log(debug=debug)
    _mend_streams()
    try:
        code = program.main(
            args,
            prog_name="byzerllm",
            standalone_mode=False,
            color=False if os.environ.get("NO_COLOR") else None,
        )
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        _complain(_with_help(error))
        return error.exit_code
    except BrokenPipeError:
        # Who read our output has gone. Python would fail once more, flushing it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ByzerError):
            _complain(str(error))
        else:
            _complain(f"{type(error).__name__}: {error}. Add --debug to see where it comes from")
        return 1
    return code if isinstance(code, int) else 0


def _mend_streams() -> None:
    """Take every text, and stand in for what was closed (``byzerllm doctor >&-``)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            stand_in = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115  # stays open
            setattr(sys, name, stand_in)
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _with_help(error: click.ClickException) -> str:
    message = error.format_message()
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return message
    return f"{message.rstrip('.')}. Run: {error.ctx.command_path} --help"


def _complain(message: str) -> None:
    from byzerllm.cli.screen import error_line

    click.secho(error_line(message), err=True, fg="red" if sys.stderr.isatty() else None)


class _Plain(logging.Formatter):
    """Log lines without tracebacks: those are for --debug."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        return re.sub(r"\s+", " ", text)


def _log(*, debug: bool) -> None:
    handler = logging.StreamHandler()
    if debug:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logging.getLogger("byzerllm").setLevel(logging.DEBUG)
    else:
        handler.setFormatter(_Plain())
    logging.getLogger().addHandler(handler)
