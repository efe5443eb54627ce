"""A system text that teaches the answer forms once, and short prompts that then name them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from byzerllm.prompts.formatters import (
    FUNCTION_IMPL_RULES,
    JSON_ANSWER_RULES,
    TOOL_CALL_RULES,
    Tool,
    demand_tool,
    describe_tools,
    fenced,
    function_calling_schema,
    schema_text,
)
from byzerllm.prompts.functions import serialize_function_to_json

if TYPE_CHECKING:
    from pydantic import BaseModel


class BaseAbility(Enum):
    """The forms of answer that ``base_ability_format`` can teach."""

    RESPONSE_WITH_CLASS = "RESPONSE_WITH_CLASS"
    FUNCTION_CALLING = "FUNCTION_CALLING"
    FUNCTION_IMPL = "FUNCTION_IMPL"
    OTHERS = "OTHERS"


_OPENING = "You are a helpful assistant. You have the abilities described below."


def base_ability_format(
    prompt: str | None = None, base_abilities: Iterable[BaseAbility] | None = None
) -> str:
    """The system text that teaches the abilities: all of them unless some are named.

    Args:
        prompt: the opening words, in place of the usual ones.
        base_abilities: ``OTHERS`` is taught in any case, and last.
    """
    chosen = set(BaseAbility if base_abilities is None else base_abilities) | {BaseAbility.OTHERS}
    return "\n\n".join(
        [
            _OPENING if prompt is None else prompt,
            *(
                f"## {ability.value}\n\n{_lesson(ability)}"
                for ability in BaseAbility
                if ability in chosen
            ),
        ]
    )


def _lesson(ability: BaseAbility) -> str:
    if ability is BaseAbility.RESPONSE_WITH_CLASS:
        return f"Given a JSON schema, you answer in JSON that matches it.\n\n{JSON_ANSWER_RULES}"
    if ability is BaseAbility.FUNCTION_CALLING:
        rules = TOOL_CALL_RULES.replace("{schema}", function_calling_schema())
        return f"Given the descriptions of tools in JSON, you choose which to call.\n\n{rules}"
    if ability is BaseAbility.FUNCTION_IMPL:
        return (
            "Given the signature of a Python function in JSON and the JSON schema of its result, "
            "you implement it; it returns JSON text (a str) that matches the schema.\n\n"
            f"{FUNCTION_IMPL_RULES}"
        )
    return (
        "When a message names none of the abilities above, you answer in plain words, "
        "helpfully and truthfully, and you say so when you do not know."
    )


def sys_response_class_format(prompt: str, cls: type[BaseModel] | str) -> str:
    """``response_class_format`` for a model that was taught the ability."""
    return "\n\n".join(
        [
            f"{_use(BaseAbility.RESPONSE_WITH_CLASS)} The JSON schema:\n\n"
            f"{fenced(schema_text(cls))}",
            f"The question:\n{prompt}",
        ]
    )


def sys_function_calling_format(
    prompt: str, tools: Sequence[Tool] | None, tool_choice: Tool | None
) -> str:
    """``function_calling_format`` for a model that was taught the ability."""
    if not tools and not tool_choice:
        return prompt
    return "\n\n".join(
        [
            f"{_use(BaseAbility.FUNCTION_CALLING)} The tools:\n\n"
            f"{describe_tools(tools, tool_choice)}",
            *demand_tool(tool_choice),
            f"The question:\n{prompt}",
        ]
    )


def sys_function_impl_format(prompt: str, func: Tool, cls: type[BaseModel] | str) -> str:
    """``function_impl_format`` for a model that was taught the ability."""
    return "\n\n".join(
        [
            f"{_use(BaseAbility.FUNCTION_IMPL)} The function:\n\n"
            f"{fenced(serialize_function_to_json(func))}",
            f"The JSON schema of its result:\n\n{fenced(schema_text(cls))}",
            f"What the function is for:\n{prompt}",
        ]
    )


def _use(ability: BaseAbility) -> str:
    return f"Use your ability {ability.value}."
