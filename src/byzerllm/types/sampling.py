"""Generation settings: from what callers write to what engines read.

Callers write ``generation.x``, ``gen.x`` or, for the old names, plain ``x``; values from a
command line are strings. Engines get one :class:`Sampling` with the field's standard names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from byzerllm.errors import ConfigError

HOOK_PREFIX = "hook."
"""Settings that start with this reach callbacks and are taken away before the engine."""

_FOR_CALLBACKS = frozenset({"human_as_model"})
_FOR_THE_CALL = frozenset({"stream", "timeout_s", "abort", "request_id"})
_RENAMED = {
    "max_length": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "stopping_sequences": "stop",
}
_INTS = frozenset({"max_tokens", "top_k", "seed", "n", "n_probs", "min_tokens", "logprobs"})
_FLOATS = frozenset(
    {
        "temperature",
        "top_p",
        "min_p",
        "typical_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
    }
)
_BOOLS = frozenset({"ignore_eos", "echo", "skip_special_tokens"})


@dataclass
class Sampling:
    """How to generate. ``values`` holds the standard names (``max_tokens``, ``temperature``,
    ``top_p``, ``stop`` as a list, ``stop_token_ids`` as a list of int …), only those set."""

    values: dict[str, Any] = field(default_factory=dict)
    request_id: str = ""
    timeout_s: float | None = None
    stream: bool = False
    abort: bool = False
    response_prefix: str = ""
    """Text the answer must begin with."""

    @property
    def max_tokens(self) -> int | None:
        value = self.values.get("max_tokens")
        return None if value is None else int(value)


def bare(key: str) -> str:
    """The setting's name without its ``generation.`` or ``gen.`` prefix."""
    if key.startswith("generation."):
        return key[11:]
    if key.startswith("gen."):
        return key[4:]
    return key


def canonical(key: str) -> str:
    """The standard name of a setting, however it was written."""
    name = bare(key)
    return _RENAMED.get(name, name)


def merged(*settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings from several places; the later wins, in whatever form it was written."""
    found: dict[str, tuple[str, Any]] = {}
    for given in settings:
        for key, value in (given or {}).items():
            found[canonical(str(key))] = (key, value)
    return dict(found.values())


def for_engine(params: Mapping[str, Any]) -> dict[str, Any]:
    """Plain parameters (of an embedding, say) without prefixes and without what is not for
    engines."""
    return {
        bare(key): value
        for key, value in params.items()
        if not callback_only(key) and bare(key) not in _FOR_THE_CALL
    }


def read(params: Mapping[str, Any]) -> Sampling:
    """Read the caller's settings.

    Raises:
        ConfigError: a value that cannot be what its name says, naming the setting.
    """
    sampling = Sampling()
    values = sampling.values
    for key, value in params.items():
        name = canonical(key)
        if value is None or name in _FOR_CALLBACKS or name.startswith(HOOK_PREFIX):
            continue
        try:
            if name == "stop":
                values["stop"] = _texts(value)
            elif name == "stop_token_ids":
                values[name] = _ids(value)
            elif name == "response_prefix":
                sampling.response_prefix = str(value)
            elif name == "request_id":
                sampling.request_id = str(value)
            elif name == "timeout_s":
                sampling.timeout_s = float(value)
            elif name in ("stream", "abort"):
                setattr(sampling, name, truth(value))
            else:
                values[name] = _typed(name, value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The generation setting {key}={value!r} is not valid") from error
    budget = values.get("max_tokens")
    if budget is not None and budget < 0:
        raise ConfigError(f"max_length={budget} is negative; it counts the new tokens")
    return sampling


def _typed(name: str, value: Any) -> Any:
    if name in _FLOATS:
        return float(value)
    if name == "logprobs" and not isinstance(value, (int, str)):
        return value
    if name in _INTS and not isinstance(value, bool):
        return int(value)
    if name in _BOOLS:
        return truth(value)
    return value


def truth(value: Any) -> bool:
    """``True`` for true, 1, yes, on in any case, as written on a command line."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "1", "yes", "on"):
            return True
        if word in ("false", "0", "no", "off", ""):
            return False
        raise ValueError(f"{value!r} is neither true nor false")
    return bool(value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        # A command line writes a list as JSON; "[INST]" is a text all the same.
        if value.startswith("["):
            try:
                found = json.loads(value)
            except ValueError:
                found = None
            if isinstance(found, list):
                return [str(text) for text in found]
        return [value] if value else []
    return [str(text) for text in value]


def _ids(value: Any) -> list[int]:
    if isinstance(value, str):
        if value.startswith("["):
            return _ids(json.loads(value))
        return [int(part) for part in value.split(",") if part.strip()]
    if isinstance(value, int):
        return [value]
    return [int(part) for part in value]


def callback_only(key: str) -> bool:
    """True for settings that only callbacks read."""
    name = bare(key)
    return name in _FOR_CALLBACKS or name.startswith(HOOK_PREFIX)
