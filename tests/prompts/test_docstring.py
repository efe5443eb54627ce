"""Docstrings are dedented and filled in, and lose nothing but white space on the way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzerllm.errors import ConfigError
from byzerllm.prompts import format_prompt, format_prompt_jinja2, format_str_jinja2
from byzerllm.prompts.docstring import render_docstring, render_docstring_jinja2, template_of


def with_docstring(text: str | None) -> Any:
    def prompt() -> None: ...

    prompt.__doc__ = text
    return prompt


def greet() -> None:
    """
    Hi {{ s }}!
    """


def test_the_leading_newline_stays_and_jinja_drops_the_final_one() -> None:
    assert format_prompt_jinja2(greet, s="Bo") == "\nHi Bo!"
    assert format_prompt(with_docstring("\n    Hi {s}!\n    "), s="Bo") == "\nHi Bo!\n"


@pytest.mark.parametrize(
    ("docstring", "template"),
    [
        ("Hi", "Hi"),
        ("  Hi\n  you", "Hi\nyou"),
        ("\n\n    Hi\n      you\n\n    there\n    ", "\n\nHi\n  you\n\nthere\n"),
        ("\n    deep\n  less\nnone", "\ndeep\nless\nnone"),
        ("\n    deep\n      \n    more", "\ndeep\n  \nmore"),
        ("\n\tHi\n\t\tyou", "\nHi\n\tyou"),
        ("Hi\n    you", "Hi\n    you"),
    ],
)
def test_the_first_lines_indentation_is_removed_from_every_line(
    docstring: str, template: str
) -> None:
    assert template_of(with_docstring(docstring)) == template


@given(st.text(alphabet="a \t\n", min_size=1).filter(str.strip))
def test_only_white_space_is_ever_removed(docstring: str) -> None:
    template = template_of(with_docstring(docstring))

    assert "".join(template.split()) == "".join(docstring.split())
    assert template.count("\n") == docstring.count("\n")


@pytest.mark.parametrize("docstring", [None, "", " \n\t\n"])
def test_a_missing_docstring_is_reported_with_the_functions_name(docstring: str | None) -> None:
    for render in (format_prompt, format_prompt_jinja2):
        with pytest.raises(ConfigError, match="prompt has no docstring"):
            render(with_docstring(docstring))


VALUES = [
    "{x}",
    "{{ x }}",
    "{% raw %}",
    "%s",
    "<b>&",
    "\\n",
    "a\n",
    "",
    "中文",
    7,
    None,
    [1],
    {"a": 1},
]


@pytest.mark.parametrize("value", VALUES)
def test_values_are_inserted_verbatim(value: Any) -> None:
    assert format_prompt(with_docstring("[{x}]"), x=value) == f"[{value}]"
    assert format_prompt_jinja2(with_docstring("[{{ x }}]"), x=value) == f"[{value}]"
    assert format_str_jinja2("[{{ x }}]", x=value) == f"[{value}]"


def test_doubled_braces_are_braces() -> None:
    assert format_prompt(with_docstring('{{"name": "{x}"}}'), x="Bo") == '{"name": "Bo"}'


def test_a_missing_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="name"):
        format_prompt(with_docstring("Hi {name}"), other=1)
    with pytest.raises(KeyError, match="name"):
        format_prompt_jinja2(with_docstring("Hi {{ name }}"), other=1)
    with pytest.raises(KeyError, match="name"):
        format_str_jinja2("Hi {{ name | upper }}")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% if name %}Hi{% else %}Ho{% endif %}", "Ho"),
        ("{{ name | default('you') }}", "you"),
        ("{% if name is defined %}Hi{% endif %}", ""),
        ("{% for one in name %}{{ one }}{% endfor %}", ""),
        ("[{{ user.age }}]", "[]"),
        ("{{ user.name }}", "Bo"),
        ("{# said to nobody #}Hi\n", "Hi"),
    ],
)
def test_jinja_templates_may_ask_whether_a_name_is_there(template: str, text: str) -> None:
    assert format_str_jinja2(template, user={"name": "Bo"}) == text


def test_extra_values_are_no_error() -> None:
    assert format_prompt(with_docstring("Hi"), x=1) == "Hi"
    assert format_str_jinja2("Hi", x=1) == "Hi"


@pytest.mark.parametrize("template", ["Hi {}", "Hi {0}", "Hi {", "Hi }"])
def test_a_broken_template_is_a_value_error(template: str) -> None:
    with pytest.raises(ValueError, match=r"[Ff]ormat string|Single"):
        format_prompt(with_docstring(template), x=1)


def test_a_prompt_may_have_a_placeholder_called_func() -> None:
    values = {"func": "f", "values": "v"}

    assert render_docstring(with_docstring("{func}{values}"), values) == "fv"
    assert render_docstring_jinja2(with_docstring("{{ func }}{{ values }}"), values) == "fv"


def test_a_template_cannot_reach_the_interpreter() -> None:
    from jinja2.exceptions import SecurityError

    with pytest.raises(SecurityError):
        format_str_jinja2("{{ x.__class__.__mro__[1].__subclasses__() }}", x="")
