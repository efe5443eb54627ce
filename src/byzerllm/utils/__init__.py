"""Old import path: the helpers of earlier releases, under the names they had here."""

from typing import TYPE_CHECKING, Any

from byzerllm.capture import exec_capture_output
from byzerllm.legacy import (
    generate_file_md5,
    generate_str_md5,
    load_json_str,
    print_flush,
    random_uuid,
    timeit,
)
from byzerllm.prompts import (
    BaseAbility,
    base_ability_format,
    format_prompt,
    format_prompt_jinja2,
    format_str_jinja2,
    function_calling_format,
    function_impl_format,
    get_type_name,
    is_annotated_type,
    response_class_format,
    response_class_format_after_chat,
    serialize_function_to_json,
    sys_function_calling_format,
    sys_function_impl_format,
    sys_response_class_format,
)
from byzerllm.types import SingleOutput, SingleOutputMeta, StreamOutputs

if TYPE_CHECKING:
    from byzerllm.types import (
        FUNCTION_CALLING_SCHEMA,
        FunctionCall,
        FunctionCallList,
        FunctionCallWrapper,
    )

__all__ = [
    "FUNCTION_CALLING_SCHEMA",
    "BaseAbility",
    "FunctionCall",
    "FunctionCallList",
    "FunctionCallWrapper",
    "SingleOutput",
    "SingleOutputMeta",
    "StreamOutputs",
    "base_ability_format",
    "exec_capture_output",
    "format_prompt",
    "format_prompt_jinja2",
    "format_str_jinja2",
    "function_calling_format",
    "function_impl_format",
    "generate_file_md5",
    "generate_str_md5",
    "get_type_name",
    "is_annotated_type",
    "load_json_str",
    "print_flush",
    "random_uuid",
    "response_class_format",
    "response_class_format_after_chat",
    "serialize_function_to_json",
    "sys_function_calling_format",
    "sys_function_impl_format",
    "sys_response_class_format",
    "timeit",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from byzerllm import types

    return getattr(types, name)
