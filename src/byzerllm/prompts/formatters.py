"""The texts that ask a model, in so many words, for a tool call, an object or a function.

They are what a model without a native mode for these gets, and how answers are asked for where
the user chose so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from byzerllm.prompts.functions import name_of, serialize_function_to_json

if TYPE_CHECKING:
    from pydantic import BaseModel

Tool = Callable[..., Any] | str
"""A function, or its description as JSON text."""


def function_calling_format(
    prompt: str, tools: Sequence[Tool] | None, tool_choice: Tool | None
) -> str:
    """Ask for calls of the tools; without any tool the prompt is returned as it is."""
    if not tools and not tool_choice:
        return prompt
    return "\n\n".join(
        [
            f"You can call these tools:\n\n{describe_tools(tools, tool_choice)}",
            TOOL_CALL_RULES.replace("{schema}", function_calling_schema()),
            *demand_tool(tool_choice),
            f"The question:\n{prompt}",
        ]
    )


def response_class_format(prompt: str, cls: type[BaseModel] | str) -> str:
    """Ask for an answer in JSON that matches the class."""
    return "\n\n".join(
        [
            f"Answer in JSON that matches this JSON schema:\n\n{fenced(schema_text(cls))}",
            JSON_ANSWER_RULES,
            f"The question:\n{prompt}",
        ]
    )


def response_class_format_after_chat(cls: type[BaseModel] | str) -> str:
    """Ask for the previous answer once more, as JSON that matches the class."""
    return "\n\n".join(
        [
            "Restate your previous answer as JSON that matches this JSON schema, adding and "
            f"leaving out nothing:\n\n{fenced(schema_text(cls))}",
            JSON_ANSWER_RULES,
        ]
    )


def function_impl_format(prompt: str, func: Tool, cls: type[BaseModel] | str) -> str:
    """Ask for the body of the function."""
    return "\n\n".join(
        [
            f"Implement this Python function:\n\n{fenced(serialize_function_to_json(func))}",
            "It must return JSON text (a str) that matches this JSON schema:\n\n"
            f"{fenced(schema_text(cls))}",
            FUNCTION_IMPL_RULES,
            f"What the function is for:\n{prompt}",
        ]
    )


# ---------------------------------------------------------------------------------------------
# What the texts are made of.


def schema_text(cls: type[BaseModel] | str) -> str:
    """The JSON schema of a pydantic class; a schema that is text already stays as it is."""
    if isinstance(cls, str):
        return cls
    if not hasattr(cls, "model_json_schema"):
        raise TypeError(f"Give a pydantic class or a JSON schema as text, not {cls!r}")
    return json.dumps(cls.model_json_schema(), ensure_ascii=False, indent=2)


def function_calling_schema() -> str:
    """The JSON schema of a list of tool calls."""
    # Here, not above: it needs pydantic, which a plain chat does not.
    from byzerllm.types.replies import FUNCTION_CALLING_SCHEMA

    return FUNCTION_CALLING_SCHEMA


def describe_tools(tools: Sequence[Tool] | None, tool_choice: Tool | None) -> str:
    """The JSON of all the tools, the mandatory one among them."""
    described = [serialize_function_to_json(tool) for tool in tools or ()]
    if tool_choice and not _names_one_of(tool_choice, tools or ()):
        described.append(serialize_function_to_json(tool_choice))
    return "\n\n".join(fenced(description) for description in described)


def demand_tool(tool_choice: Tool | None) -> list[str]:
    """The sentence that makes one tool mandatory, if there is one."""
    if not tool_choice:
        return []
    return [f"You must call the tool {tool_name(tool_choice)}: it is mandatory."]


def tool_name(tool: Tool) -> str:
    """The name of a tool, be it a function, its JSON text or the name itself."""
    if not isinstance(tool, str):
        return name_of(tool)
    try:
        described = json.loads(tool)
    except ValueError:
        return tool
    if not isinstance(described, dict):
        return tool
    # OpenAI's form wraps the description: {"type": "function", "function": {…}}.
    inner = described.get("function")
    named = inner if isinstance(inner, dict) else described
    return str(named.get("name", tool))


def _names_one_of(tool_choice: Tool, tools: Sequence[Tool]) -> bool:
    return tool_name(tool_choice) in {tool_name(tool) for tool in tools}


def fenced(json_text: str) -> str:
    """JSON in a block of its own."""
    return f"```json\n{json_text}\n```"


_TOOL_CALL_EXAMPLE = fenced(
    json.dumps(
        {
            "id": "call_1",
            "type": "function",
            "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2, "b": 3}}}],
        }
    )
)

TOOL_CALL_RULES = f"""\
To call tools, answer with one JSON block that matches this JSON schema, and with nothing else:

{fenced("{schema}")}

For example, with a tool named add that takes the numbers a and b, \
the answer to "What is 2 plus 3?" is:

{_TOOL_CALL_EXAMPLE}

Take every argument from the question. If no tool fits the question, do not make one up: \
say honestly that none fits."""

_CLASS_EXAMPLE_SCHEMA = (
    '{"type": "object", "required": ["name", "age"], '
    '"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}'
)

JSON_ANSWER_RULES = f"""\
Write one JSON block, without comments and with no text around it. \
It holds the data itself, not the schema. For example, with the schema

{fenced(_CLASS_EXAMPLE_SCHEMA)}

the answer to "Ada is 36 years old. Who is this?" is:

{fenced('{"name": "Ada", "age": 36}')}"""

FUNCTION_IMPL_RULES = """\
Answer with exactly one ```python block. It must be complete: every import and every helper it \
needs is inside. Define the function under the name and with the parameters given above. \
Do not call it, not even for demonstration."""
