"""A Python function described as JSON, for the prompts that tell a model about it."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints


def serialize_function_to_json(func: Callable[..., Any] | str) -> str:
    """The function's name, docstring and parameters as JSON text; text is returned unchanged.

    A parameter is described by ``Annotated[T, "text"]`` or
    ``Annotated[T, {"description": "text", "enum": ["a", "b"]}]``.
    """
    if isinstance(func, str):
        return func
    return json.dumps(_describe(func), ensure_ascii=False, indent=2, default=repr)


def _describe(func: Callable[..., Any]) -> dict[str, Any]:
    if not callable(func):
        raise TypeError(f"A tool is a function or its JSON text, not {type(func).__name__}")
    hints = _hints(func)
    named = [
        parameter
        for parameter in inspect.signature(func).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    return {
        "name": name_of(func),
        "description": inspect.getdoc(_whole(func)) or "",
        "parameters": {
            "type": "object",
            "properties": {
                parameter.name: _describe_parameter(parameter, hints.get(parameter.name, Any))
                for parameter in named
            },
        },
    }


def _describe_parameter(parameter: inspect.Parameter, hint: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"type": get_type_name(hint), "description": ""}
    for note in get_args(hint)[1:] if is_annotated_type(hint) else ():
        if isinstance(note, str):
            described["description"] = note
        elif isinstance(note, dict):
            described.update({key: note[key] for key in ("description", "enum") if key in note})
    if parameter.default is not parameter.empty:
        described["default"] = parameter.default
    return described


def name_of(func: Callable[..., Any]) -> str:
    """The name under which a model calls the function."""
    func = _whole(func)
    return str(getattr(func, "__name__", type(func).__name__))


def _whole(func: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a ``functools.partial``, which has no name or docstring of its own."""
    while isinstance(func, functools.partial):
        func = func.func
    return func


def _hints(func: Callable[..., Any]) -> dict[str, Any]:
    func = _whole(func)
    target = func if inspect.isroutine(func) or inspect.isclass(func) else type(func).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError):
        # A postponed annotation names something local, or there is nothing to read from.
        return dict(getattr(target, "__annotations__", {}))


def get_type_name(t: Any) -> str:
    """The name of a type as one writes it in Python: ``int``, ``list[int]``, ``Optional[str]``."""
    if is_annotated_type(t):
        return get_type_name(get_args(t)[0])
    if isinstance(t, str):
        return t
    if isinstance(t, type) and get_origin(t) is None:
        return t.__name__
    return str(t).replace("typing.", "")


def is_annotated_type(hint: Any) -> bool:
    """True for ``Annotated[T, …]``."""
    return get_origin(hint) is Annotated
