"""ByzerLLM: deploy, call, watch and program any language model through one object."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0.dev0"

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM
    from byzerllm.client.decorators import prompt
    from byzerllm.events.hooks import On
    from byzerllm.params import parse_params
    from byzerllm.runtime.choose import connect_cluster

    on: On

__all__ = ["ByzerLLM", "connect_cluster", "on", "parse_params", "prompt"]

# Each name loads when it is first used, so that importing one part does not load the others.
_HOMES = {
    "ByzerLLM": "byzerllm.client",
    "connect_cluster": "byzerllm.runtime.choose",
    "parse_params": "byzerllm.params",
    "prompt": "byzerllm.client.decorators",
}


def __getattr__(name: str) -> Any:
    if name == "on":  # handlers of every client in this process
        return import_module("byzerllm.events.hooks").GLOBAL.on
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
