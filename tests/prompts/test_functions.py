"""Functions are described by their name, docstring and parameters."""

from __future__ import annotations

import functools
import json
from enum import Enum
from typing import Annotated, Any, Literal

import pytest

from byzerllm.prompts import get_type_name, is_annotated_type, serialize_function_to_json


def described(func: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(serialize_function_to_json(func))
    return found


def properties(func: Any) -> dict[str, Any]:
    found: dict[str, Any] = described(func)["parameters"]["properties"]
    return found


def find(
    city: Annotated[str, "the city's name"],
    unit: Annotated[str, {"description": "of temperature", "enum": ["C", "F"]}] = "C",
    days: int = 3,
) -> str:
    """Tell the weather
    of a city."""
    return city + unit + str(days)


def test_a_function_is_described_with_its_parameters() -> None:
    assert described(find) == {
        "name": "find",
        "description": "Tell the weather\nof a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "str", "description": "the city's name"},
                "unit": {
                    "type": "str",
                    "description": "of temperature",
                    "enum": ["C", "F"],
                    "default": "C",
                },
                "days": {"type": "int", "description": "", "default": 3},
            },
        },
    }


@pytest.mark.parametrize("text", ['{"name": "find"}', "", "not JSON"])
def test_text_is_returned_unchanged(text: str) -> None:
    assert serialize_function_to_json(text) is text


def test_a_default_of_none_is_told() -> None:
    def f(x: int | None = None) -> None: ...

    assert properties(f)["x"]["default"] is None


def test_a_default_that_json_cannot_hold_is_told_as_python_writes_it() -> None:
    class Unit(Enum):
        C = "c"

    def f(unit: Any = Unit.C, numbers: Any = frozenset({1})) -> None: ...

    assert properties(f)["unit"]["default"] == "<Unit.C: 'c'>"
    assert properties(f)["numbers"]["default"] == "frozenset({1})"


def test_other_alphabets_stay_readable() -> None:
    def f(stadt: Annotated[str, "名称"]) -> None: ...

    assert "名称" in serialize_function_to_json(f)


def test_parameters_that_have_no_name_to_pass_them_by_are_left_out() -> None:
    def f(x: int, *rest: int, y: int, **named: int) -> None: ...

    assert list(properties(f)) == ["x", "y"]


class Weather:
    def find(self, city: str) -> None: ...

    def __call__(self, town: Annotated[str, "a town"]) -> None: ...


def test_methods_and_other_callables_are_described_too() -> None:
    assert list(properties(Weather().find)) == ["city"]
    assert properties(Weather()) == {"town": {"type": "str", "description": "a town"}}
    assert described(Weather())["name"] == "Weather"
    assert described(functools.partial(find, days=1))["name"] == "find"
    assert properties(functools.partial(find, "Rome"))["unit"]["description"] == "of temperature"
    assert properties(lambda x: x) == {"x": {"type": "Any", "description": ""}}


def test_an_annotation_that_cannot_be_resolved_is_told_as_written() -> None:
    def f(x: int) -> None: ...

    f.__annotations__ = {"x": "Unknown[int]"}

    assert properties(f)["x"]["type"] == "Unknown[int]"


@pytest.mark.parametrize("tool", [7, None, {"name": "find"}])
def test_what_cannot_be_called_is_refused(tool: Any) -> None:
    with pytest.raises(TypeError, match="A tool is a function"):
        serialize_function_to_json(tool)


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (str, "str"),
        (int, "int"),
        (Weather, "Weather"),
        (list[int], "list[int]"),
        (dict[str, int], "dict[str, int]"),
        (Any, "Any"),
        (Annotated[int, "text"], "int"),
        (Annotated[list[str], "text"], "list[str]"),
        (Literal["a", "b"], "Literal['a', 'b']"),
        ("Later", "Later"),
    ],
)
def test_types_are_named_as_in_python(hint: Any, name: str) -> None:
    assert get_type_name(hint) == name


def test_annotated_types_are_recognised() -> None:
    assert is_annotated_type(Annotated[int, "text"])
    assert not is_annotated_type(int)
    assert not is_annotated_type(list[int])
    assert not is_annotated_type("Annotated[int, 'text']")
