"""The answers that are checked against a schema; importing this module imports pydantic."""

import json
from typing import Any

from pydantic import BaseModel, Field, field_validator

from byzerllm.types.data import LLMResponse


class LLMFunctionCallResponse(BaseModel):
    """A model's answer and the results of the tools it asked for, in the order of its calls."""

    response: LLMResponse
    values: list[Any]
    metadata: dict[str, Any]


class LLMClassResponse(BaseModel):
    """A model's answer and the object read from it."""

    response: LLMResponse
    value: Any | None
    metadata: dict[str, Any]


class FunctionCall(BaseModel):
    """Which tool to call, and with what."""

    name: str = Field(description="the name of the tool")
    arguments: dict[str, Any] = Field(description="the arguments of the tool, by name")

    @field_validator("arguments", mode="before")
    @classmethod
    def _read_arguments(cls, arguments: Any) -> Any:
        # OpenAI's wire carries the arguments as JSON text, and "" for a tool without any.
        if isinstance(arguments, str):
            return json.loads(arguments) if arguments.strip() else {}
        return arguments


class FunctionCallWrapper(BaseModel):
    """One call of a tool."""

    function: FunctionCall


class FunctionCallList(BaseModel):
    """The tools to call, in order."""

    tool_calls: list[FunctionCallWrapper]
    id: str = ""
    type: str = "function"

    @field_validator("id", mode="before")
    @classmethod
    def _read_id(cls, id: Any) -> Any:  # noqa: A002 - the field's name
        return "" if id is None else id


FUNCTION_CALLING_SCHEMA: str = json.dumps(FunctionCallList.model_json_schema(), ensure_ascii=False)
"""The JSON schema of ``FunctionCallList``, as text."""
