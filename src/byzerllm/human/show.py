"""A request as people read it, with secrets masked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_SECRET = re.compile(
    r"secret|passw|pwd|credential|cookie|bearer|authorization|^auth$|key$|token$|"
    r"^(access|auth|session|refresh|id)token"
)
"""What the name of a credential looks like, in lower case and without ``_``, ``-`` and ``.``."""
_NO_SECRET = re.compile(r"(stop|eos|bos|pad|unk|sep|cls|mask|end|begin)token$")
MASK = "***"


def masked(value: Any, key: str = "") -> Any:
    """A copy in which the values of keys that look like credentials are ``***``."""
    if value not in (None, "") and _is_secret(key):
        return MASK
    if isinstance(value, Mapping):
        return {name: masked(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(inner) for inner in value]
    return value


def _is_secret(key: str) -> bool:
    name = re.sub(r"[^a-z0-9]", "", key.lower())
    return bool(_SECRET.search(name)) and not _NO_SECRET.search(name)


def shown_request(model: str, item: Mapping[str, Any]) -> str:
    """The request that is about to be sent: its model and every field, a line each."""
    lines = [f"model: {model}"]
    for key, value in masked(item).items():
        if key == "history":
            lines.append("history:" if value else "history: []")
            lines += [f"  {_message(message)}" for message in value]
        else:
            lines.append(f"{key}: {_text(value)}")
    return printable("\n".join(lines))


def _message(message: Any) -> str:
    if not isinstance(message, Mapping):
        return _text(message)
    rest = {key: value for key, value in message.items() if key not in ("role", "content")}
    more = f" {_text(rest)}" if rest else ""
    # Indented, so that a line inside a message cannot pass for a message.
    text = _text(message.get("content")).replace("\n", "\n      ")
    return f"{message.get('role')}: {text}{more}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=repr)


def printable(text: str) -> str:
    """The text without the control characters that could act on the terminal that shows it."""
    return "".join(
        letter if letter in "\n\t" or (letter.isprintable() or ord(letter) > 0x9F) else "�"
        for letter in text
    )
