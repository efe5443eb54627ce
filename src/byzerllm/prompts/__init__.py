"""Prompt texts: docstrings as templates, and the words that ask for tools, objects, functions."""

from byzerllm.prompts.abilities import (
    BaseAbility,
    base_ability_format,
    sys_function_calling_format,
    sys_function_impl_format,
    sys_response_class_format,
)
from byzerllm.prompts.docstring import format_prompt, format_prompt_jinja2, format_str_jinja2
from byzerllm.prompts.formatters import (
    function_calling_format,
    function_impl_format,
    response_class_format,
    response_class_format_after_chat,
)
from byzerllm.prompts.functions import (
    get_type_name,
    is_annotated_type,
    serialize_function_to_json,
)

__all__ = [
    "BaseAbility",
    "base_ability_format",
    "format_prompt",
    "format_prompt_jinja2",
    "format_str_jinja2",
    "function_calling_format",
    "function_impl_format",
    "get_type_name",
    "is_annotated_type",
    "response_class_format",
    "response_class_format_after_chat",
    "serialize_function_to_json",
    "sys_function_calling_format",
    "sys_function_impl_format",
    "sys_response_class_format",
]
