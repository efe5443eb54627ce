"""The public records keep their fields and defaults, and share nothing between instances."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import byzerllm.types
from byzerllm.types import (
    FUNCTION_CALLING_SCHEMA,
    EventCallback,
    EventCallbackResult,
    EventName,
    ExecuteCodeResponse,
    FintuneRequest,
    FintuneRequestExtra,
    FunctionCall,
    FunctionCallList,
    InferBackend,
    LLMClassResponse,
    LLMFunctionCallResponse,
    LLMHistoryItem,
    LLMMetadata,
    LLMRequest,
    LLMResponse,
    Role,
    SingleOutput,
    SingleOutputMeta,
    StreamOutputs,
)

REQUIRED = object()

FIELDS: dict[type[Any], dict[str, Any]] = {
    LLMHistoryItem: {"role": REQUIRED, "content": REQUIRED},
    LLMResponse: {"output": REQUIRED, "input": REQUIRED, "metadata": {}},
    LLMRequest: {
        "instruction": REQUIRED,
        "embedding": False,
        "max_length": 4096,
        "top_p": 0.95,
        "temperature": 0.1,
    },
    FintuneRequestExtra: {
        "max_seq_length": 1024,
        "num_train_epochs": 1,
        "logging_steps": 100,
        "save_steps": 100,
        "extra_params": {},
    },
    FintuneRequest: {
        "model_path": REQUIRED,
        "pretrained_model_type": REQUIRED,
        "input_data_path": REQUIRED,
        "extra_params": FintuneRequestExtra(),
    },
    ExecuteCodeResponse: {
        "status": REQUIRED,
        "output": REQUIRED,
        "code": REQUIRED,
        "prompt": REQUIRED,
        "variables": {},
    },
    SingleOutputMeta: {
        "input_tokens_count": 0,
        "generated_tokens_count": 0,
        "reasoning_content": "",
        "finish_reason": "",
        "first_token_time": 0.0,
        "extra_info": {},
    },
    SingleOutput: {"text": REQUIRED, "metadata": REQUIRED},
    StreamOutputs: {"outputs": REQUIRED},
    LLMMetadata: {
        "context_window": 8192,
        "num_output": 256,
        "is_chat_model": False,
        "is_function_calling_model": False,
        "model_name": "unknown",
        "system_role": "system",
    },
}


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED


@pytest.mark.parametrize("record", FIELDS, ids=lambda record: record.__name__)
def test_fields_order_and_defaults_are_the_published_ones(record: type[Any]) -> None:
    found = [(field.name, default_of(field)) for field in dataclasses.fields(record)]

    assert found == list(FIELDS[record].items())


@pytest.mark.parametrize("record", FIELDS, ids=lambda record: record.__name__)
def test_two_records_share_no_default(record: type[Any]) -> None:
    needed = [default for default in FIELDS[record].values() if default is REQUIRED]
    one, other = record(*needed), record(*needed)

    for field in dataclasses.fields(record):
        if field.default_factory is not dataclasses.MISSING:
            assert getattr(one, field.name) is not getattr(other, field.name)


def test_constants_have_the_published_values() -> None:
    assert (Role.User, Role.Assistant, Role.System) == ("user", "assistant", "system")
    assert InferBackend.Transformers == "transformers"
    assert InferBackend.VLLM == "ray/vllm"
    assert InferBackend.DeepSpeed == "ray/deepspeed"
    assert InferBackend.LLAMA_CPP == "llama_cpp"
    assert {name.name: name.value for name in EventName} == {
        "BEFORE_CALL_MODEL": "before_call_model",
        "AFTER_CALL_MODEL": "after_call_model",
    }


def test_the_callback_aliases_can_annotate_a_callback() -> None:
    def callback(*args: Any) -> EventCallbackResult:
        return True, args

    known: EventCallback = callback

    assert known(1) == (True, (1,))


def test_every_exported_name_exists_and_another_does_not() -> None:
    for name in byzerllm.types.__all__:
        assert hasattr(byzerllm.types, name), name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = byzerllm.types.Nothing


def test_the_plain_records_load_without_pydantic() -> None:
    code = "import sys, byzerllm.types; print('pydantic' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert done.stdout == "False\n", done.stderr


def test_records_can_be_pickled() -> None:
    response = LLMResponse(output="Rome", input={"instruction": "?"}, metadata={"speed": 9.5})

    assert pickle.loads(pickle.dumps(response)) == response


# -- the pydantic ones --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [{"city": "Rome"}, '{"city": "Rome"}', ' {"city":"Rome"}\n'],
    ids=["dict", "JSON text", "JSON text with space around"],
)
def test_arguments_are_a_dict_or_its_json_text(arguments: Any) -> None:
    assert FunctionCall(name="find", arguments=arguments).arguments == {"city": "Rome"}


def test_no_arguments_may_be_written_as_empty_text() -> None:
    assert FunctionCall.model_validate({"name": "now", "arguments": ""}).arguments == {}


@pytest.mark.parametrize("arguments", ["[1]", "Rome", "1", "null", None, ["Rome"]])
def test_arguments_of_another_shape_are_refused(arguments: Any) -> None:
    with pytest.raises(ValidationError):
        FunctionCall.model_validate({"name": "find", "arguments": arguments})


@pytest.mark.parametrize("id_field", [{}, {"id": None}, {"id": ""}])
def test_the_id_of_a_call_list_is_optional(id_field: dict[str, Any]) -> None:
    call = {"function": {"name": "find", "arguments": {}}}

    calls = FunctionCallList.model_validate({"tool_calls": [call], **id_field})

    assert (calls.id, calls.type) == ("", "function")
    assert calls.tool_calls[0].function.name == "find"


def test_the_schema_constant_is_the_schema_of_the_call_list() -> None:
    schema = json.loads(FUNCTION_CALLING_SCHEMA)

    assert schema == FunctionCallList.model_json_schema()
    assert schema["required"] == ["tool_calls"]
    assert schema["$defs"]["FunctionCall"]["properties"]["arguments"]["type"] == "object"


@pytest.mark.parametrize(
    ("reply", "fields"),
    [
        (LLMFunctionCallResponse, {"values": [object()]}),
        (LLMClassResponse, {"value": object()}),
        (LLMClassResponse, {"value": None}),
    ],
)
def test_replies_hold_the_very_objects(reply: type[BaseModel], fields: dict[str, Any]) -> None:
    response = LLMResponse(output="Rome", input="?")

    held = reply(response=response, metadata={"reason": ""}, **fields)

    assert held.response is response  # type: ignore[attr-defined]
    for name, value in fields.items():
        assert getattr(held, name) == value
    with pytest.raises(ValidationError, match="metadata"):
        reply(response=response, **fields)
