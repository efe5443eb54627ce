"""Every record of the package, in one place; the pydantic ones load when they are first used."""

from typing import TYPE_CHECKING, Any

from byzerllm.types.data import (
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
    SingleOutput,
    SingleOutputMeta,
    StreamOutputs,
)

if TYPE_CHECKING:
    from byzerllm.types.replies import (
        FUNCTION_CALLING_SCHEMA,
        FunctionCall,
        FunctionCallList,
        FunctionCallWrapper,
        LLMClassResponse,
        LLMFunctionCallResponse,
    )

__all__ = [
    "FUNCTION_CALLING_SCHEMA",
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
    "SingleOutput",
    "SingleOutputMeta",
    "StreamOutputs",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from byzerllm.types import replies

    return getattr(replies, name)
