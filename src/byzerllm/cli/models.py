"""``byzerllm models``: what can be fetched, and what is here."""

from __future__ import annotations

import click

from byzerllm.cli.command import Group


@click.group(
    "models",
    cls=Group,
    invoke_without_command=True,
    short_help="List, fetch and remove models.",
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, fetch and remove models."""
    if ctx.invoked_subcommand is None:
        show()


def show() -> None:
    """Print what the catalogue has, and the other files in the cache."""
    from byzerllm import models
    from byzerllm.cli.screen import columns, megabytes

    rows: list[tuple[str, ...]] = [("NAME", "SIZE", "LICENCE", "WHERE", "WHAT IT IS")]
    known = set()
    for model in models.CATALOGUE.values():
        known.add(model.path)
        where = str(model.path) if model.present else f"byzerllm models pull {model.name}"
        rows.append((model.name, megabytes(model.size), model.licence, where, model.title))
    for file in models.local_files():
        if file not in known:
            rows.append((file.stem, megabytes(file.stat().st_size), "?", str(file), "yours"))
    for line in columns(rows):
        click.echo(line)


@command.command("pull")
@click.argument("name")
def pull(name: str) -> None:
    """Fetch the model NAME into the cache, unless it is there, and print its path."""
    from byzerllm.cli.choice import pull as fetch
    from byzerllm.cli.screen import Screen

    click.echo(fetch(name, Screen()))


@command.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Delete the model NAME from the cache; "pull" fetches it again."""
    from byzerllm import models

    removed = models.remove(name)
    click.echo(f"Removed {removed}" if removed else f"{name} was not here")
