"""``byzerllm doctor``: is everything here that is needed?"""

from __future__ import annotations

import click

from byzerllm.cli.command import Command


@click.command("doctor", cls=Command, short_help="See what is missing, and what mends it.")
def command() -> int:
    """Look at this machine and say what is missing, with the command that mends it.

    Leaves with 1 if something that is needed is broken.
    """
    from byzerllm.cli.checks import CHECKS, PROBLEM

    colors = {PROBLEM: "red", "ok": "green"}
    broken = 0
    for check in CHECKS:
        for finding in check():
            mark = click.style(f"{finding.mark:<8}", fg=colors.get(finding.mark))
            click.echo(f"{mark} {finding.what:<14} {finding.detail}".rstrip())
            if finding.mend:
                click.echo(f"{'':<23} → {finding.mend}")
            broken += finding.mark == PROBLEM
    if broken:
        click.echo(f"\n{broken} problem{'s' if broken > 1 else ''}; the arrows say what to run.")
    return 1 if broken else 0
