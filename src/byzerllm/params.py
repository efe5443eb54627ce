"""Training parameters as they arrive from a command line or a form: typed in their names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from byzerllm.errors import ConfigError


def parse_params(params: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Decode the parameters named ``<prefix>.<type>.<name>``; the others are left out.

    >>> parse_params({"sft.int.epochs": "3", "sft.bool.fp16": "true", "name": "x"}, "sft")
    {'epochs': 3, 'fp16': True}

    Args:
        params: their values are strings, or already of the right type.
        prefix: ``sft`` or ``sfft``.
    """
    decoded: dict[str, Any] = {}
    for key, value in params.items():
        if not key.startswith(f"{prefix}."):
            continue
        kind, _, name = key.removeprefix(f"{prefix}.").partition(".")
        if kind not in _READERS or not name:
            raise ConfigError(
                f"{key!r} is not of the form '{prefix}.<type>.<name>' "
                f"with a type among {', '.join(_READERS)}"
            )
        try:
            decoded[name] = _READERS[kind](value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{key} = {value!r} cannot be read as {kind}: {error}") from error
    return decoded


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in ("true", "false"):
        raise ValueError('write "true" or "false"')
    return word == "true"


def _read_json(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        decoded = json.loads(value) if isinstance(value, str) else value
        if not isinstance(decoded, kind):
            raise TypeError(f"it is a {type(decoded).__name__}")
        return decoded

    return read


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "bool": _read_bool,
    "str": str,
    "list": _read_json(list),
    "dict": _read_json(dict),
}
