"""Chat messages as dictionaries: their text, their marks, and turns that alternate.

A message has a ``role`` and a ``content`` (text, or a list of parts) and may have ``metadata``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from byzerllm.errors import ConfigError

Message = dict[str, Any]

CONTINUE = "continue"
"""What the padding messages say."""

_SIDES = ("user", "assistant")


def content_str(content: object) -> str:
    """The text of a message's content; an image stands in it as ``<image>``.

    >>> content_str([{"type": "text", "text": "See "}, {"type": "image_url", "image_url": {}}])
    'See <image>'
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError(
            f"Message content is text, a list of parts or None, not {type(content).__name__}"
        )
    return "".join(_part_str(part) for part in content)


def _part_str(part: object) -> str:
    if not isinstance(part, Mapping):
        raise TypeError(f"A content part is a dict, not {type(part).__name__}: {part!r:.80}")
    if "type" not in part:
        raise ConfigError(f"A content part needs a 'type' ('text', 'image_url'): {part!r:.80}")
    if part["type"] == "image_url":
        return "<image>"
    if part["type"] != "text":
        raise ConfigError(
            f"Unknown content part type {part['type']!r}; known are 'text' and 'image_url'"
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise TypeError(f"A text part carries its words under 'text': {part!r:.80}")
    return text


def role_of(message: object) -> str:
    """The role of a message, or an error that says what is wrong with its shape."""
    if not isinstance(message, Mapping):
        raise TypeError(
            f"A message is a dict with 'role' and 'content', not {type(message).__name__}"
        )
    role = message.get("role")
    if not isinstance(role, str):
        raise ConfigError(f"A message needs a 'role' ('user', 'assistant'…): {dict(message)!r:.80}")
    return role


# ---------------------------------------------------------------------------------------------
# Marks. The setters change the message itself and hand it back.


def termindate_message(message: Message) -> Message:
    """Mark the conversation as finished with this message."""
    return _mark(message, "TERMINATE", True)


def un_termindate_message(message: Message) -> Message:
    """Mark the conversation as not finished with this message."""
    return _mark(message, "TERMINATE", False)


def success_message(message: Message) -> Message:
    """Mark the message as telling of a success."""
    return _mark(message, "code", 0)


def fail_message(message: Message) -> Message:
    """Mark the message as telling of a failure."""
    return _mark(message, "code", 1)


def is_success(message: Mapping[str, Any]) -> bool:
    """True only if the message was marked as a success."""
    return _marks(message).get("code") == 0


def inc_error_count(message: Message) -> Message:
    """Count one more error."""
    return _mark(message, "error_count", get_error_count(message) + 1)


def get_error_count(message: Mapping[str, Any]) -> int:
    """How many errors were counted."""
    return int(_marks(message).get("error_count", 0))


def check_error_count(message: Mapping[str, Any], max_error_count: int = 3) -> bool:
    """True if at least ``max_error_count`` errors were counted."""
    return get_error_count(message) >= max_error_count


def copy_error_count(message: Mapping[str, Any], new_message: Message) -> Message:
    """Carry the count of ``message`` over to ``new_message``, which is handed back."""
    return _mark(new_message, "error_count", get_error_count(message))


def _marks(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return message.get("metadata") or {}


def _mark(message: Message, name: str, value: object) -> Message:
    if message.get("metadata") is None:
        message["metadata"] = {}
    message["metadata"][name] = value
    return message


# ---------------------------------------------------------------------------------------------
# Padding, for models that insist on user and assistant taking turns, the user first and last.
# System messages stand outside the turns: both functions look across them. A message of any other
# role (a tool's result) is a step of its own, on either side of which nothing is joined or padded.


def padding_messages_merge(data: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Make the turns alternate by joining neighbours of the same role.

    ``[A:a, U:b, U:c, A:d]`` becomes ``[U:continue, A:a, U:"b\\nc", A:d, U:continue]``.
    """
    return _alternate(data, join=True)


def padding_messages_expand(data: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Make the turns alternate by putting ``continue`` between neighbours of the same role.

    ``[U:b, U:c]`` becomes ``[U:b, A:continue, U:c]``.
    """
    return _alternate(data, join=False)


def _alternate(data: Iterable[Mapping[str, Any]], *, join: bool) -> list[Message]:
    turns: list[Message] = []
    at_start = True
    before: Message | None = None  # the turn to alternate with
    for message in data:
        role = role_of(message)
        turn = _copy(message)
        if role == "system":
            turns.append(turn)
            continue
        if role not in _SIDES:
            before = None
        elif before is not None and before["role"] == role:
            if join:
                _append(before, turn)
                continue
            turns.append(_padding(_other(role)))
            before = turn
        else:
            if at_start and role == "assistant":
                turns.append(_padding("user"))
            before = turn
        turns.append(turn)
        at_start = False
    if before is not None and before["role"] == "assistant":
        turns.append(_padding("user"))
    return turns


def _copy(message: Mapping[str, Any]) -> Message:
    """A message of our own: marking it, or adding a part, leaves the caller's as it was."""
    own = dict(message)
    for name in ("metadata", "content"):
        if isinstance(own.get(name), (dict, list)):
            own[name] = own[name].copy()
    return own


def _append(before: Message, turn: Message) -> None:
    """Let ``before`` say what ``turn`` says too, and keep the other fields of both."""
    content = _joined(before.get("content"), turn.get("content"))
    metadata = {**_marks(before), **_marks(turn)}
    for name, value in turn.items():
        before.setdefault(name, value)
    before["content"] = content
    if metadata:
        before["metadata"] = metadata


def _joined(first: object, second: object) -> object:
    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, list) or isinstance(second, list):
        return [*_parts(first), *_parts(second)]
    return f"{first}\n{second}"


def _parts(content: object) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _other(role: str) -> str:
    return "user" if role == "assistant" else "assistant"


def _padding(role: str) -> Message:
    return {"role": role, "content": CONTINUE}
