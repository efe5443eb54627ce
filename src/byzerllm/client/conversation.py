"""Conversations as users give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from byzerllm.errors import ConfigError
from byzerllm.types.data import LLMHistoryItem
from byzerllm.types.records import Message

Conversation = str | Sequence[Mapping[str, Any] | LLMHistoryItem]
"""Messages in OpenAI's shape, or a text, which is one user message."""

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


def takes_messages(meta: Mapping[str, Any]) -> bool:
    """Does a model with this meta read messages rather than one text?"""
    return meta.get("model_deploy_type") == "saas" or bool(meta.get("message_format"))


def read_conversation(conversations: Conversation) -> list[Message]:
    """Messages as they are sent: copies, without their ``metadata``.

    Raises:
        ConfigError: empty, an unknown role, or content that is neither text nor parts.
    """
    if isinstance(conversations, str):
        conversations = [{"role": "user", "content": conversations}]
    if conversations is not None and not isinstance(conversations, (list, tuple)):
        raise ConfigError(
            f"The conversation is a {type(conversations).__name__}; give a text or a list of "
            "messages such as [{'role': 'user', 'content': '…'}]"
        )
    if not conversations:
        raise ConfigError(
            "The conversation is empty; give a text or a list of messages "
            "such as {'role': 'user', 'content': '…'}"
        )
    return [_read_message(number, message) for number, message in enumerate(conversations)]


def _read_message(number: int, message: Any) -> Message:
    if isinstance(message, LLMHistoryItem):
        message = {"role": message.role, "content": message.content}
    if not isinstance(message, Mapping):
        raise ConfigError(
            f"Message {number} is a {type(message).__name__}; a dictionary with role and "
            "content was due"
        )
    role = message.get("role")
    if role not in _ROLES:
        raise ConfigError(
            f"Message {number} has the role {role!r}; known are {', '.join(sorted(_ROLES))}"
        )
    content = message.get("content")
    if not isinstance(content, (str, list)) and not (
        content is None and (role == "assistant" or "tool_calls" in message)
    ):
        raise ConfigError(
            f"The content of message {number} is a {type(content).__name__}; "
            "a text or a list of parts was due"
        )
    return {key: value for key, value in message.items() if key != "metadata"}
