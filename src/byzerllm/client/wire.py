"""The dictionaries of earlier releases, at the edge: request items and result rows.

An item is ``{"instruction", "history", <settings>, <mode flags>}``, a row
``{"predict", "input", "metadata"}``. ``_query``, callbacks of the old form and plug-ins speak
them; everything else speaks the records of ``byzerllm.types.records``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from byzerllm.errors import ConfigError
from byzerllm.types.records import (
    Embed,
    Generate,
    Message,
    Meta,
    RenderChat,
    Reply,
    Request,
    Rerank,
    Tokenize,
)

_FLAGS = ("meta", "tokenizer", "apply_chat_template", "embedding", "embed_rerank")
_PLAIN = {"role": "user"}


def to_item(request: Request, *, history: bool = True) -> dict[str, Any]:
    """One request as an item. ``history=False`` leaves that key out (the items of ``chat``)."""
    params = dict(request.params)
    if isinstance(request, Generate):
        if request.messages is None:
            item: dict[str, Any] = {"instruction": request.prompt, "history": []}
        else:
            *earlier, last = request.messages
            item = {"instruction": last.get("content"), "history": earlier}
            rest = {key: value for key, value in last.items() if key != "content"}
            if rest != _PLAIN:
                item["message"] = rest
        if not history:
            del item["history"]
        return {**item, **params}
    if isinstance(request, Embed):
        texts = request.texts
        return {"instruction": texts[0] if len(texts) == 1 else texts, "embedding": True, **params}
    if isinstance(request, Rerank):
        pairs = [list(pair) for pair in request.pairs]
        return {"instruction": pairs, "embedding": True, "embed_rerank": True, **params}
    if isinstance(request, Tokenize):
        return {"instruction": request.text, "tokenizer": True, **params}
    if isinstance(request, RenderChat):
        text = json.dumps(request.messages, ensure_ascii=False)
        return {"instruction": text, "apply_chat_template": True, **params}
    return {"instruction": "", "meta": True, **params}


def from_item(item: Any, model: str, *, message_format: bool) -> Request:
    """An item as a request. ``message_format`` says whether the model reads messages.

    Raises:
        ConfigError: it is no item.
    """
    if not isinstance(item, Mapping):
        raise ConfigError(f"A request item is a dictionary, not {type(item).__name__}: {item!r}")
    params = {
        key: value
        for key, value in item.items()
        if key not in _FLAGS and key not in ("instruction", "history", "message")
    }
    instruction = item.get("instruction")
    if item.get("meta"):
        return Meta(model, params)
    if instruction is None:
        raise ConfigError("A request item needs an 'instruction'")
    if item.get("tokenizer"):
        return Tokenize(model, str(instruction), params)
    if item.get("apply_chat_template"):
        messages = json.loads(instruction) if isinstance(instruction, str) else instruction
        return RenderChat(model, messages, params)
    if item.get("embed_rerank"):
        return Rerank(model, read_pairs(instruction), params)
    if item.get("embedding"):
        texts = [instruction] if isinstance(instruction, str) else list(instruction)
        return Embed(model, texts, params)
    earlier = item.get("history") or []
    if not message_format and not earlier and "message" not in item:
        return Generate(model, prompt=instruction, params=params)
    last: Message = {**item.get("message", _PLAIN), "content": instruction}
    return Generate(model, messages=[*map(dict, earlier), last], params=params)


def read_pairs(pairs: Any) -> list[tuple[str, str]]:
    """One ``(query, passage)`` or a list of them, as a list.

    Raises:
        ConfigError: empty, or not pairs of texts.
    """
    if pairs and isinstance(pairs, (tuple, list)) and len(pairs) == 2:
        if all(isinstance(text, str) for text in pairs):
            pairs = [pairs]
    if not isinstance(pairs, (tuple, list)) or not pairs:
        raise ConfigError("sentence_pairs is empty; give one (query, passage) or a list of them")
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or [type(text) for text in pair] != [str, str]:
            raise ConfigError(f"{pair!r} is not a (query, passage) pair of texts")
    return [(pair[0], pair[1]) for pair in pairs]


def to_row(item: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """A reply as a result row; the row a callback gave stays as it is."""
    if reply.row is not None:
        return reply.row
    return {"predict": reply.value, "input": item, "metadata": reply.metadata()}


def from_row(row: dict[str, Any], reply: Reply | None = None) -> Reply:
    """A result row as a reply, taking what it does not say from ``reply``."""
    metadata = row.get("metadata")
    by = metadata.get("by", "hook") if isinstance(metadata, dict) else "hook"
    base = reply or Reply(by=str(by), finish_reason="stop")
    return replace(base, value=row.get("predict"), row=row)


def check_json(value: Any, place: str) -> None:
    """See that a value can be sent as JSON, without the cost of encoding it.

    Raises:
        ConfigError: it cannot; the message names the place.
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{place} has the key {key!r}, and JSON keys are texts")
            check_json(inner, f"{place}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            check_json(inner, f"{place}[{number}]")
    else:
        raise ConfigError(
            f"{place} is a {type(value).__name__}, which cannot be sent as JSON; "
            "give text, numbers, lists and dictionaries"
        )
