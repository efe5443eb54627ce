"""The data types of the public interface: plain dataclasses, constants and aliases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional, Tuple  # noqa: UP035 - the aliases below keep their known spelling


class Role:
    """Who says a message."""

    User = "user"
    Assistant = "assistant"
    System = "system"


class InferBackend:
    """The names ``setup_infer_backend`` takes."""

    Transformers = "transformers"
    VLLM = "ray/vllm"
    DeepSpeed = "ray/deepspeed"
    LLAMA_CPP = "llama_cpp"


@dataclass
class LLMHistoryItem:
    """One earlier message of a conversation."""

    role: str
    content: str


@dataclass
class LLMRequest:
    """What to ask a model; a list of instructions gives one answer each, in order."""

    instruction: str | list[str]
    embedding: bool = False
    max_length: int = 4096
    """The largest number of new tokens."""
    top_p: float = 0.95
    temperature: float = 0.1


@dataclass
class LLMResponse:
    """One answer of a model."""

    output: str | list[Any]
    input: str | dict[str, Any]
    """The request item that was answered."""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class FintuneRequestExtra:
    """How to fine-tune."""

    max_seq_length: int = 1024
    num_train_epochs: int = 1
    logging_steps: int = 100
    save_steps: int = 100
    extra_params: dict[str, Any] = field(default_factory=dict)


@dataclass
class FintuneRequest:
    """Which model to fine-tune on which data."""

    model_path: str
    pretrained_model_type: str
    input_data_path: str
    extra_params: FintuneRequestExtra = field(default_factory=FintuneRequestExtra)


@dataclass
class ExecuteCodeResponse:
    """What came of running code that a model wrote."""

    status: int
    output: str
    code: str
    prompt: str
    variables: dict[str, Any] = field(default_factory=dict)


class EventName(Enum):
    """The events of ``add_event_callback``."""

    BEFORE_CALL_MODEL = "before_call_model"
    AFTER_CALL_MODEL = "after_call_model"


EventCallbackResult = Tuple[bool, Optional[Any]]  # noqa: UP006, UP045
EventCallback = Callable[..., EventCallbackResult]


@dataclass
class SingleOutputMeta:
    """What is known about one streamed text."""

    input_tokens_count: int = 0
    generated_tokens_count: int = 0
    reasoning_content: str = ""
    finish_reason: str = ""
    first_token_time: float = 0.0
    extra_info: dict[str, Any] = field(default_factory=dict)


@dataclass
class SingleOutput:
    """One streamed text and what is known about it."""

    text: str
    metadata: SingleOutputMeta


@dataclass
class StreamOutputs:
    """The texts one step of a stream brings."""

    outputs: list[SingleOutput]


@dataclass
class LLMMetadata:
    """What a client tells other libraries about its model."""

    context_window: int = 8192
    num_output: int = 256
    is_chat_model: bool = False
    is_function_calling_model: bool = False
    model_name: str = "unknown"
    system_role: str = Role.System
