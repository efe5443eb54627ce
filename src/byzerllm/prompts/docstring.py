"""A function's docstring as the template of a prompt."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from byzerllm.errors import ConfigError

if TYPE_CHECKING:
    import jinja2


def template_of(func: Callable[..., Any]) -> str:
    """The docstring without the indentation of its first line that is not empty."""
    text = func.__doc__
    if not text or not text.strip():
        name = getattr(func, "__qualname__", repr(func))
        raise ConfigError(f"{name} has no docstring, and the docstring is the prompt: write one")
    lines = text.split("\n")
    first = next(line for line in lines if line.strip())
    depth = _indentation(first)
    return "\n".join(line[min(depth, _indentation(line)) :] for line in lines)


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def render_docstring(func: Callable[..., Any], values: Mapping[str, Any]) -> str:
    """The docstring with ``{name}`` replaced; ``{{`` and ``}}`` are braces.

    A name without a value raises ``KeyError``.
    """
    return template_of(func).format_map(values)


def render_docstring_jinja2(func: Callable[..., Any], values: Mapping[str, Any]) -> str:
    """The docstring rendered by Jinja2."""
    return render_jinja2(template_of(func), values)


def render_jinja2(text: str, values: Mapping[str, Any]) -> str:
    """``text`` rendered by Jinja2; printing a name without a value raises ``KeyError``."""
    return _compiled(text).render(values)


def format_prompt(func: Callable[..., Any], **args: Any) -> str:
    """``render_docstring`` with the values as keywords.

    >>> def greet(name): "Say hello to {name}."
    >>> format_prompt(greet, name="Bo")
    'Say hello to Bo.'
    """
    return render_docstring(func, args)


def format_prompt_jinja2(func: Callable[..., Any], **args: Any) -> str:
    """``render_docstring_jinja2`` with the values as keywords."""
    return render_docstring_jinja2(func, args)


def format_str_jinja2(s: str, **args: Any) -> str:
    """``render_jinja2`` with the values as keywords."""
    return render_jinja2(s, args)


@functools.lru_cache(maxsize=256)
def _compiled(text: str) -> jinja2.Template:
    return _environment().from_string(text)


@functools.cache
def _environment() -> jinja2.Environment:
    """Sandboxed, because not every template was written by the person who runs the program."""
    from jinja2 import Undefined
    from jinja2.sandbox import SandboxedEnvironment
    from jinja2.utils import missing

    class LoudUndefined(Undefined):
        """Can be tested, as templates do, but a missing name is never printed as ""."""

        def __str__(self) -> str:
            # In "x.y" with a known x, Jinja2's own rule holds: it prints as "".
            if self._undefined_obj is missing and self._undefined_name is not None:
                raise KeyError(self._undefined_name)
            return super().__str__()

    # Prompts are plain text: "<" stays "<".
    return SandboxedEnvironment(autoescape=False, undefined=LoudUndefined)
