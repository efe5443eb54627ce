"""Old import path of ``byzerllm.types`` and the templates."""

from typing import TYPE_CHECKING, Any

from byzerllm.types import (
    EventCallback,
    EventCallbackResult,
    EventName,
    ExecuteCodeResponse,
    FintuneRequest,
    FintuneRequestExtra,
    InferBackend,
    LLMHistoryItem,
    LLMMetadata,
    LLMRequest,
    LLMResponse,
    Role,
)

if TYPE_CHECKING:
    from byzerllm.templates import Template, Templates
    from byzerllm.types import (
        FunctionCall,
        FunctionCallList,
        FunctionCallWrapper,
        LLMClassResponse,
        LLMFunctionCallResponse,
    )

__all__ = [
    "EventCallback",
    "EventCallbackResult",
    "EventName",
    "ExecuteCodeResponse",
    "FintuneRequest",
    "FintuneRequestExtra",
    "FunctionCall",
    "FunctionCallList",
    "FunctionCallWrapper",
    "InferBackend",
    "LLMClassResponse",
    "LLMFunctionCallResponse",
    "LLMHistoryItem",
    "LLMMetadata",
    "LLMRequest",
    "LLMResponse",
    "Role",
    "Template",
    "Templates",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from byzerllm import templates, types

    return getattr(templates if name in ("Template", "Templates") else types, name)
