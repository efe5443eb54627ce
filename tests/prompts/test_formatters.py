"""The prompts say all that a model needs in order to answer in the form asked for."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from byzerllm.prompts import (
    BaseAbility,
    base_ability_format,
    function_calling_format,
    function_impl_format,
    response_class_format,
    response_class_format_after_chat,
    serialize_function_to_json,
    sys_function_calling_format,
    sys_function_impl_format,
    sys_response_class_format,
)
from byzerllm.types import FUNCTION_CALLING_SCHEMA, FunctionCallList


class Person(BaseModel):
    name: str
    age: int


def find(city: str) -> str:
    """Tell the weather."""
    return city


def book(city: str) -> str:
    """Book a room."""
    return city


FIND_JSON = '{"name": "find", "description": "as text"}'
FIND_OPENAI = '{"type": "function", "function": {"name": "find"}}'
PERSON_JSON = json.dumps(Person.model_json_schema(), ensure_ascii=False, indent=2)
TRAP = 'Who {is} {{this}}? {schema} %s ```json {"a": 1}```'


def blocks(text: str) -> list[Any]:
    """Everything in fenced JSON blocks, decoded."""
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)\n```", text, re.DOTALL)]


# -- tools --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [function_calling_format, sys_function_calling_format])
@pytest.mark.parametrize("tools", [[], None])
def test_without_tools_the_prompt_stays_as_it_is(ask: Callable[..., str], tools: Any) -> None:
    assert ask(TRAP, tools, None) is TRAP


def test_a_tool_prompt_holds_tools_schema_example_and_question() -> None:
    text = function_calling_format("Is it raining in Rome?", [find, book], None)

    assert serialize_function_to_json(find) in text
    assert serialize_function_to_json(book) in text
    assert FUNCTION_CALLING_SCHEMA in text
    assert text.endswith("Is it raining in Rome?")
    assert "say honestly" in text
    assert "mandatory" not in text
    *_, example = blocks(text)
    assert FunctionCallList.model_validate(example).tool_calls[0].function.arguments


@pytest.mark.parametrize("ask", [function_calling_format, sys_function_calling_format])
@pytest.mark.parametrize("choice", [find, FIND_JSON, FIND_OPENAI, "find"])
@pytest.mark.parametrize("tools", [[find, book], [FIND_JSON, book], [find]])
def test_a_chosen_tool_is_mandatory(ask: Callable[..., str], choice: Any, tools: Any) -> None:
    text = ask("?", tools, choice)

    assert "You must call the tool find" in text
    assert text.count('"name": "find"') == 1


@pytest.mark.parametrize("ask", [function_calling_format, sys_function_calling_format])
@pytest.mark.parametrize("tools", [[], None, [book]])
def test_a_chosen_tool_alone_is_described_too(ask: Callable[..., str], tools: Any) -> None:
    text = ask("?", tools, find)

    assert serialize_function_to_json(find) in text
    assert "You must call the tool find" in text


# -- classes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "schema"), [(Person, PERSON_JSON), ('{"x": 1}', '{"x": 1}')])
def test_a_class_prompt_holds_schema_example_and_question(cls: Any, schema: str) -> None:
    text = response_class_format("Who is this?", cls)

    assert f"```json\n{schema}\n```" in text
    assert text.endswith("Who is this?")
    *_, example_schema, example = blocks(text)
    assert set(example_schema["required"]) == set(example)


@pytest.mark.parametrize(("cls", "schema"), [(Person, PERSON_JSON), ('{"x": 1}', '{"x": 1}')])
def test_after_the_chat_the_answer_is_asked_for_as_json(cls: Any, schema: str) -> None:
    text = response_class_format_after_chat(cls)

    assert "your previous answer" in text
    assert f"```json\n{schema}\n```" in text


def test_an_impl_prompt_holds_signature_schema_rules_and_purpose() -> None:
    text = function_impl_format("Count the letters.", find, Person)

    assert serialize_function_to_json(find) in text
    assert PERSON_JSON in text
    assert "return JSON" in text
    assert "exactly one ```python block" in text
    assert "complete" in text
    assert "not even for demonstration" in text
    assert text.endswith("Count the letters.")


@pytest.mark.parametrize("cls", [dict, 7, None])
def test_a_class_without_a_schema_is_refused(cls: Any) -> None:
    with pytest.raises(TypeError, match="pydantic class or a JSON schema"):
        response_class_format("?", cls)


# -- abilities ----------------------------------------------------------------------------------


def test_abilities_have_their_names_as_values() -> None:
    assert {ability.name: ability.value for ability in BaseAbility} == {
        name: name
        for name in ("RESPONSE_WITH_CLASS", "FUNCTION_CALLING", "FUNCTION_IMPL", "OTHERS")
    }


@pytest.mark.parametrize(
    ("chosen", "taught"),
    [
        (None, list(BaseAbility)),
        ([], [BaseAbility.OTHERS]),
        ([BaseAbility.OTHERS], [BaseAbility.OTHERS]),
        ([BaseAbility.FUNCTION_IMPL], [BaseAbility.FUNCTION_IMPL, BaseAbility.OTHERS]),
        (
            [BaseAbility.FUNCTION_CALLING] * 2,
            [BaseAbility.FUNCTION_CALLING, BaseAbility.OTHERS],
        ),
    ],
)
def test_the_named_abilities_and_others_are_taught(
    chosen: list[BaseAbility] | None, taught: list[BaseAbility]
) -> None:
    before = None if chosen is None else list(chosen)

    text = base_ability_format(base_abilities=chosen)

    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == [ability.value for ability in taught]
    assert chosen == before


def test_the_ability_text_does_not_grow_between_calls() -> None:
    assert base_ability_format() == base_ability_format()
    assert inspect.signature(base_ability_format).parameters["base_abilities"].default is None


def test_the_opening_words_can_be_replaced() -> None:
    text = base_ability_format("You are Ada.", [])

    assert text.startswith("You are Ada.\n\n## OTHERS")
    assert text.removeprefix("You are Ada.") in base_ability_format(base_abilities=[])


def test_the_abilities_teach_what_the_short_prompts_leave_out() -> None:
    system = base_ability_format()

    assert FUNCTION_CALLING_SCHEMA in system
    assert "exactly one ```python block" in system
    assert "say honestly" in system
    assert "{schema}" not in system


@pytest.mark.parametrize(
    ("short", "long", "ability", "arguments"),
    [
        (sys_response_class_format, response_class_format, "RESPONSE_WITH_CLASS", [Person]),
        (sys_function_calling_format, function_calling_format, "FUNCTION_CALLING", [[find], None]),
        (sys_function_impl_format, function_impl_format, "FUNCTION_IMPL", [find, Person]),
    ],
)
def test_the_short_prompts_name_the_ability(
    short: Callable[..., str], long: Callable[..., str], ability: str, arguments: list[Any]
) -> None:
    text = short("The question?", *arguments)

    assert f"ability {ability}" in text
    assert text.endswith("The question?")
    assert len(text) < len(long("The question?", *arguments))


@pytest.mark.parametrize(
    "text",
    [
        function_calling_format(TRAP, [find], None),
        response_class_format(TRAP, Person),
        function_impl_format(TRAP, find, Person),
        sys_function_calling_format(TRAP, [find], None),
        sys_response_class_format(TRAP, Person),
        sys_function_impl_format(TRAP, find, Person),
    ],
)
def test_the_question_is_inserted_verbatim(text: str) -> None:
    assert text.endswith(f"\n{TRAP}")
