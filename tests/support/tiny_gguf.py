"""GGUF files of models too small to know anything: random weights, right in every other way.

No reranker and no embedding model in GGUF comes in a registry package, so a test builds one: a
BERT of two layers, read by llama.cpp as any other.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import random
import struct
from array import array
from pathlib import Path
from typing import Any

WIDTH, LAYERS, HEADS, INNER, CONTEXT = 32, 2, 4, 64, 512

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "what",
    "is",
    "the",
    "capital",
    "city",
    "of",
    "germany",
    "france",
    "berlin",
    "paris",
    "rome",
    "a",
    "an",
    "in",
    "on",
    "and",
    "cat",
    "dog",
    "sat",
    "mat",
    "it",
    "rains",
    "today",
    "tomorrow",
    "river",
    "flows",
    "sea",
    "blue",
    "green",
    "name",
    "who",
    "where",
    "why",
    "how",
    "two",
    "three",
    "b",
]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789.,?!")
# In GGUF a word's first piece carries "▁", and the pieces behind it are bare.
TOKENS = [*SPECIAL, *(f"▁{word}" for word in dict.fromkeys([*WORDS, *LETTERS])), *LETTERS]

POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
_ALIGNMENT = 32
_F32 = 0
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3  # token types


def tiny_bert(path: Path, *, pooling: str = "", classifier: bool = False, seed: int = 1) -> Path:
    """Write a BERT: an embedding model, or with a ``classifier`` a reranker.

    Args:
        path: where to.
        pooling: what the file says its vectors are pooled with; nothing if empty.
        classifier: end in a head that scores pairs.
        seed: of the weights.
    """
    values: dict[str, Any] = {
        "general.architecture": "bert",
        "general.name": "Tiny Bert",
        "bert.context_length": CONTEXT,
        "bert.embedding_length": WIDTH,
        "bert.feed_forward_length": INNER,
        "bert.block_count": LAYERS,
        "bert.attention.head_count": HEADS,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [
            _UNKNOWN if token == "[UNK]" else _CONTROL if token in SPECIAL else _NORMAL
            for token in TOKENS
        ],
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,  # spelled like this
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.mask_token_id": 4,
    }
    if pooling:
        values["bert.pooling_type"] = POOLING[pooling]
    shapes = {
        "token_embd.weight": (WIDTH, len(TOKENS)),
        "token_types.weight": (WIDTH, 2),
        "position_embd.weight": (WIDTH, CONTEXT),
        **_pair("token_embd_norm", WIDTH),
    }
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes.update(_pair(f"blk.{layer}.{name}", WIDTH, WIDTH))
        shapes.update(_pair(f"blk.{layer}.attn_output_norm", WIDTH))
        shapes.update(_pair(f"blk.{layer}.ffn_up", WIDTH, INNER))
        shapes.update(_pair(f"blk.{layer}.ffn_down", INNER, WIDTH))
        shapes.update(_pair(f"blk.{layer}.layer_output_norm", WIDTH))
    if classifier:
        values["bert.classifier.output_labels"] = ["LABEL_0"]
        shapes.update(_pair("cls", WIDTH, WIDTH))
        shapes.update(_pair("cls.output", WIDTH, 1))
    return write_gguf(path, values, shapes, random.Random(seed))


def _pair(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """A weight and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[-1:]}


def write_gguf(
    path: Path, values: dict[str, Any], shapes: dict[str, tuple[int, ...]], chance: random.Random
) -> Path:
    """Write a GGUF file with random weights: norms near one, the rest around zero."""
    head = [b"GGUF", struct.pack("<IQQ", 3, len(shapes), len(values))]
    head += [_text(key) + _value(value) for key, value in values.items()]
    data = bytearray()
    for name, shape in shapes.items():
        head.append(_text(name))
        head.append(struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, _F32, len(data)))
        middle = 1.0 if name.endswith("norm.weight") else 0.0
        count = 1
        for length in shape:
            count *= length
        data += array("f", (chance.gauss(middle, 0.3) for _ in range(count))).tobytes()
        data += b"\0" * (-len(data) % _ALIGNMENT)
    start = b"".join(head)
    path.write_bytes(start + b"\0" * (-len(start) % _ALIGNMENT) + data)
    return path


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    kind, data = _typed(value)
    return struct.pack("<I", kind) + data


def _typed(value: Any) -> tuple[int, bytes]:
    """The type's number, and the bytes."""
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, _text(value)
    kind, items = 8, [_text(item) for item in value if isinstance(item, str)]
    if not items:
        kind, items = 5, [struct.pack("<i", item) for item in value]
    return 9, struct.pack("<IQ", kind, len(items)) + b"".join(items)
