"""Functions whose docstring is the prompt."""

from __future__ import annotations

from typing import Any

from byzerllm.errors import NotYet


def prompt(
    llm: Any = None, render: str = "jinja2", check_result: bool = False, options: Any = None
) -> Any:
    """Make a function whose docstring is rendered and sent to a model.

    Raises:
        NotYet: decorators come with a later release.
    """
    raise NotYet("@byzerllm.prompt comes with a later release; chat_oai works now")
