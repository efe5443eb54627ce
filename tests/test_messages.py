"""Messages are read, marked and padded; only the setters change one."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzerllm.errors import ConfigError
from byzerllm.messages import (
    check_error_count,
    content_str,
    copy_error_count,
    fail_message,
    get_error_count,
    inc_error_count,
    is_success,
    padding_messages_expand,
    padding_messages_merge,
    success_message,
    termindate_message,
    un_termindate_message,
)

Message = dict[str, Any]

ROLES = {"S": "system", "U": "user", "A": "assistant", "T": "tool", "F": "function"}
LETTERS = {role: letter for letter, role in ROLES.items()}


def talk(text: str) -> list[Message]:
    """``"A:a U:b"`` as messages; a letter alone has the content ``-``."""
    pairs = [word.partition(":") for word in text.split()]
    return [{"role": ROLES[letter], "content": said or "-"} for letter, _, said in pairs]


def tell(messages: list[Message]) -> str:
    """Messages as ``talk`` reads them."""
    return " ".join(f"{LETTERS[message['role']]}:{message['content']}" for message in messages)


# -- content ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("", ""),
        ("Hi", "Hi"),
        ([], ""),
        ([{"type": "text", "text": "Hi"}], "Hi"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": " b"}], "a b"),
        (
            [
                {"type": "text", "text": "See "},
                {"type": "image_url", "image_url": {"url": "https://h/x.png"}},
                {"type": "text", "text": "!"},
                {"type": "image_url"},
            ],
            "See <image>!<image>",
        ),
    ],
)
def test_content_becomes_text(content: Any, text: str) -> None:
    assert content_str(content) == text


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (7, TypeError),
        ({"type": "text", "text": "Hi"}, TypeError),
        (b"Hi", TypeError),
        (["Hi"], TypeError),
        ([None], TypeError),
        ([{"type": "text"}], TypeError),
        ([{"type": "text", "text": None}], TypeError),
        ([{"text": "Hi"}], ConfigError),
        ([{}], ConfigError),
        ([{"type": "video"}], ValueError),
        ([{"type": None}], ValueError),
    ],
)
def test_content_of_another_shape_is_refused(content: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        content_str(content)


# -- marks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "metadata"),
    [
        (termindate_message, {"TERMINATE": True}),
        (un_termindate_message, {"TERMINATE": False}),
        (success_message, {"code": 0}),
        (fail_message, {"code": 1}),
        (inc_error_count, {"error_count": 1}),
    ],
)
@pytest.mark.parametrize("before", [{}, {"metadata": None}, {"metadata": {"other": 1}}])
def test_a_setter_marks_the_message_itself_and_returns_it(
    mark: Callable[[Message], Message], metadata: Message, before: Message
) -> None:
    message = {"role": "user", "content": "Hi", **copy.deepcopy(before)}

    marked = mark(message)

    assert marked is message
    assert message["metadata"] == {**(before.get("metadata") or {}), **metadata}
    assert (message["role"], message["content"]) == ("user", "Hi")


@pytest.mark.parametrize(
    ("metadata", "success"),
    [
        ({}, False),
        ({"metadata": None}, False),
        ({"metadata": {}}, False),
        ({"metadata": {"code": 0}}, True),
        ({"metadata": {"code": 1}}, False),
        ({"metadata": {"code": None}}, False),
    ],
)
def test_success_is_code_zero_only(metadata: Message, success: bool) -> None:
    assert is_success({"role": "user", "content": "", **metadata}) is success


def test_errors_are_counted() -> None:
    message: Message = {"role": "user", "content": ""}

    for count in range(1, 4):
        assert not check_error_count(message)
        inc_error_count(message)
        assert get_error_count(message) == count

    assert check_error_count(message)
    assert check_error_count(message, max_error_count=2)
    assert not check_error_count(message, 4)


def test_looking_at_a_message_does_not_change_it() -> None:
    message: Message = {"role": "user", "content": ""}

    assert get_error_count(message) == 0
    assert check_error_count(message, 0)
    assert not is_success(message)

    assert message == {"role": "user", "content": ""}


def test_the_error_count_is_carried_over() -> None:
    old = {"role": "user", "content": "", "metadata": {"error_count": 2, "code": 1}}
    new: Message = {"role": "user", "content": "again"}

    assert copy_error_count(old, new) is new

    assert new["metadata"] == {"error_count": 2}
    assert old["metadata"] == {"error_count": 2, "code": 1}
    assert copy_error_count({"role": "user"}, new)["metadata"] == {"error_count": 0}


# -- padding ------------------------------------------------------------------------------------

C = "continue"


@pytest.mark.parametrize(
    ("before", "merged", "expanded"),
    [
        ("", "", ""),
        (
            "A:a U:b U:c A:d",
            f"U:{C} A:a U:b\nc A:d U:{C}",
            f"U:{C} A:a U:b A:{C} U:c A:d U:{C}",
        ),
        ("U:b", "U:b", "U:b"),
        ("A:a", f"U:{C} A:a U:{C}", f"U:{C} A:a U:{C}"),
        ("A:a A:b", f"U:{C} A:a\nb U:{C}", f"U:{C} A:a U:{C} A:b U:{C}"),
        ("S:s", "S:s", "S:s"),
        ("S:s S:t", "S:s S:t", "S:s S:t"),
        # across a system message
        ("S:s U:b S:t U:c", "S:s U:b\nc S:t", f"S:s U:b S:t A:{C} U:c"),
        ("U:b S:s U:c", "U:b\nc S:s", f"U:b S:s A:{C} U:c"),
        ("S:s A:a", f"S:s U:{C} A:a U:{C}", f"S:s U:{C} A:a U:{C}"),
        ("U:b A:a S:s", f"U:b A:a S:s U:{C}", f"U:b A:a S:s U:{C}"),
        # not across a tool's result
        ("U:b A:a T:4 A:d", f"U:b A:a T:4 A:d U:{C}", f"U:b A:a T:4 A:d U:{C}"),
        ("U:b F:4 U:c", "U:b F:4 U:c", "U:b F:4 U:c"),
        ("T:4 A:a", f"T:4 A:a U:{C}", f"T:4 A:a U:{C}"),
        ("U:b A:a T:4", "U:b A:a T:4", "U:b A:a T:4"),
    ],
)
def test_padding_makes_turns_alternate(before: str, merged: str, expanded: str) -> None:
    assert tell(padding_messages_merge(talk(before))) == merged
    assert tell(padding_messages_expand(talk(before))) == expanded


TEXT_B = {"type": "text", "text": "b"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://h/x.png"}}


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ([IMAGE], [TEXT_B], [IMAGE, TEXT_B]),
        ("b", [IMAGE], [TEXT_B, IMAGE]),
        ([IMAGE], "b", [IMAGE, TEXT_B]),
        (None, "b", "b"),
        ("b", None, "b"),
        (None, None, None),
        (None, [IMAGE], [IMAGE]),
        ("", "b", "\nb"),
    ],
)
def test_merging_joins_parts_as_parts(first: Any, second: Any, joined: Any) -> None:
    messages = [{"role": "user", "content": first}, {"role": "user", "content": second}]

    assert padding_messages_merge(messages) == [{"role": "user", "content": joined}]


def test_merging_keeps_the_other_fields_of_both() -> None:
    merged = padding_messages_merge(
        [
            {"role": "user", "content": "a", "name": "Ada", "metadata": {"code": 1, "x": 1}},
            {"role": "user", "content": "b", "tag": 1, "metadata": {"code": 0}},
        ]
    )

    assert merged == [
        {
            "role": "user",
            "content": "a\nb",
            "name": "Ada",
            "tag": 1,
            "metadata": {"code": 0, "x": 1},
        }
    ]


@pytest.mark.parametrize("pad", [padding_messages_merge, padding_messages_expand])
@pytest.mark.parametrize(
    ("data", "error"), [(["Hi"], TypeError), ([{"content": "Hi"}], ConfigError)]
)
def test_what_is_no_message_is_refused(
    pad: Callable[[Any], Any], data: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        pad(data)


contents = st.one_of(
    st.text(max_size=3),
    st.none(),
    st.lists(st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=3))),
)
conversations = st.lists(
    st.builds(
        lambda role, content, metadata: {"role": role, "content": content, **metadata},
        st.sampled_from(list(ROLES.values())),
        contents,
        st.sampled_from([{}, {"metadata": {"code": 1}}, {"metadata": {"error_count": 2}}]),
    )
)


def segments(messages: list[Message]) -> list[list[str]]:
    """The roles between the messages that are neither user, assistant nor system."""
    runs: list[list[str]] = [[]]
    for message in messages:
        if message["role"] in ("user", "assistant"):
            runs[-1].append(message["role"])
        elif message["role"] != "system":
            runs.append([])
    return runs


@pytest.mark.parametrize("pad", [padding_messages_merge, padding_messages_expand])
@given(messages=conversations)
def test_padded_turns_alternate_from_user_to_user(
    pad: Callable[[list[Message]], list[Message]], messages: list[Message]
) -> None:
    runs = segments(pad(messages))

    for run in runs:
        assert all(one != other for one, other in itertools.pairwise(run))
    assert runs[0][:1] != ["assistant"]
    assert runs[-1][-1:] != ["assistant"]


@pytest.mark.parametrize("pad", [padding_messages_merge, padding_messages_expand])
@given(messages=conversations)
def test_padding_twice_is_padding_once(
    pad: Callable[[list[Message]], list[Message]], messages: list[Message]
) -> None:
    once = pad(messages)

    assert pad(once) == once


@pytest.mark.parametrize("pad", [padding_messages_merge, padding_messages_expand])
@given(messages=conversations)
def test_padding_and_then_marking_leaves_the_input_alone(
    pad: Callable[[list[Message]], list[Message]], messages: list[Message]
) -> None:
    before = copy.deepcopy(messages)

    for message in pad(messages):
        inc_error_count(message)
        if isinstance(message["content"], list):
            message["content"].append({"type": "text", "text": "more"})

    assert messages == before


@given(messages=conversations)
def test_expanding_only_inserts(messages: list[Message]) -> None:
    rest = iter(padding_messages_expand(messages))

    assert all(message in rest for message in messages)


@given(messages=conversations)
def test_merging_keeps_everything_but_user_and_assistant_in_place(messages: list[Message]) -> None:
    def others(talk: list[Message]) -> list[Message]:
        return [message for message in talk if message["role"] not in ("user", "assistant")]

    assert others(padding_messages_merge(messages)) == others(messages)
