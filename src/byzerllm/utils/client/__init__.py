"""Old import path: what a program with a client needs. Each name loads when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM, default_chat_wrapper
    from byzerllm.human import ask_human
    from byzerllm.templates import Template, Templates
    from byzerllm.types import (
        EventCallback,
        EventCallbackResult,
        EventName,
        ExecuteCodeResponse,
        FintuneRequest,
        FintuneRequestExtra,
        InferBackend,
        LLMClassResponse,
        LLMFunctionCallResponse,
        LLMHistoryItem,
        LLMRequest,
        LLMResponse,
        Role,
    )
    from byzerllm.utils.client import code_utils, message_utils, parallel_utils

__all__ = [
    "ByzerLLM",
    "EventCallback",
    "EventCallbackResult",
    "EventName",
    "ExecuteCodeResponse",
    "FintuneRequest",
    "FintuneRequestExtra",
    "InferBackend",
    "LLMClassResponse",
    "LLMFunctionCallResponse",
    "LLMHistoryItem",
    "LLMRequest",
    "LLMResponse",
    "Role",
    "Template",
    "Templates",
    "ask_human",
    "code_utils",
    "default_chat_wrapper",
    "message_utils",
    "parallel_utils",
]

_HOMES = {
    "ByzerLLM": "byzerllm.client",
    "default_chat_wrapper": "byzerllm.client",
    "ask_human": "byzerllm.human",
    "Template": "byzerllm.templates",
    "Templates": "byzerllm.templates",
}


def __getattr__(name: str) -> Any:
    if name in ("code_utils", "message_utils", "parallel_utils"):
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "byzerllm.types")), name)
