"""Read the header of a GGUF file: is this a model, which, and is all of it there?

llama.cpp says only that it failed to load a file; this says why beforehand. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from byzerllm.errors import ModelFileError

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_MOST_TEXT = 1 << 26
"""Bytes of keys, texts and names together; chat templates are the longest of a real header."""
_MOST_ITEMS = 1 << 22
"""Entries, tensors and list items that are read one by one; vocabularies are the longest."""
_DEEPEST = 4
"""Lists within lists."""

POOLINGS = ("none", "mean", "cls", "last", "rank")
"""How the vectors of a text's tokens become one, in the order of their numbers in a file."""

# How many numbers a block of each tensor type holds, and in how many bytes. Types not named
# here are newer than this table: where their tensors end is not checked.
_BLOCKS = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    9: (32, 36),  # Q8_1
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    30: (1, 2),  # BF16
}


@dataclass
class Header:
    """What a GGUF file says of itself."""

    values: dict[str, Any] = field(default_factory=dict)
    """The entries; lists of numbers and texts, which nobody here needs, as ``None``."""
    tensors: list[str] = field(default_factory=list)

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture", ""))

    @property
    def name(self) -> str:
        return str(self.values.get("general.name", ""))

    @property
    def context_length(self) -> int:
        """Tokens the model was trained to read; 0 if the file does not say."""
        length = self.values.get(f"{self.architecture}.context_length")
        return length if isinstance(length, int) else 0

    @property
    def chat_template(self) -> str:
        return str(self.values.get("tokenizer.chat_template", ""))

    @property
    def pooling(self) -> str:
        """How the model was trained to pool; empty if the file does not say."""
        kind = self.values.get(f"{self.architecture}.pooling_type")
        return POOLINGS[kind] if isinstance(kind, int) and 0 < kind < len(POOLINGS) else ""

    @property
    def generates(self) -> bool:
        """False for encoders, which give vectors or scores only."""
        name = self.architecture
        causal = self.values.get(f"{name}.attention.causal", True)
        return bool(causal) and "bert" not in name and not name.endswith(("embedding", "encoder"))

    @property
    def is_reranker(self) -> bool:
        """True if the model ends in a classifier, so that its score of a pair has a meaning."""
        return any(name.startswith(("cls.", "cls_", "classifier")) for name in self.tensors)


def read_header(path: str | Path) -> Header:
    """Read and check the header.

    Raises:
        ModelFileError: it is no GGUF file, or it is cut off; the message says which.
    """
    path = Path(path)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise ModelFileError(f"{path} {what}; a llama.cpp model is one .gguf file")
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(4)
            if magic != b"GGUF":
                raise ModelFileError(
                    f"{path} is not a GGUF model: it starts with {magic!r}. Give a .gguf file, "
                    "such as the one that 'byzerllm models pull smollm2' fetches"
                )
            return _Reader(file, path, size).header()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from error


class _Reader:
    """Reads one header. Whatever the file says, it costs no more than the file is long."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self._file = file
        self._path = path
        self._size = size
        self._at = 4
        self._items = 0
        self._text_bytes = 0

    def header(self) -> Header:
        version, tensor_count, value_count = self._numbers("<IQQ")
        if version not in (2, 3):
            raise ModelFileError(
                f"{self._path} has GGUF version {version}; versions 2 and 3 are known"
            )
        header = Header()
        self._count(value_count)
        for _ in range(value_count):
            key = self._text()
            (kind,) = self._numbers("<I")
            header.values[key] = self._value(kind)
        self._count(tensor_count)
        end = 0
        for _ in range(tensor_count):
            header.tensors.append(self._text())
            end = max(end, self._tensor_end())
        alignment = header.values.get("general.alignment")
        if not isinstance(alignment, int) or alignment < 1:
            alignment = 32
        needed = -(-self._at // alignment) * alignment + end
        if tensor_count and needed > self._size:
            raise ModelFileError(
                f"{self._path} is cut off: it has {self._size} bytes and its tensors need "
                f"{needed}. Fetch it again"
            )
        return header

    def _tensor_end(self) -> int:
        """Where the data of the next tensor ends, from the beginning of all data."""
        (dimensions,) = self._numbers("<I")
        if dimensions > 8:
            raise self._damaged(f"a tensor has {dimensions} dimensions")
        *lengths, kind, offset = self._numbers(f"<{dimensions}QIQ")
        block, in_bytes = _BLOCKS.get(kind, (1, 0))
        count = 1
        for length in lengths:
            count *= length
        end: int = offset + -(-count // block) * in_bytes
        return end

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._numbers("<" + _SCALARS[kind])[0]
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY or depth == _DEEPEST:
            raise self._damaged(f"a value has the type {kind}")
        item, count = self._numbers("<IQ")
        if item in _SCALARS:
            self._skip(count * struct.calcsize("<" + _SCALARS[item]))
            return None
        self._count(count)
        if item == _STRING:
            for _ in range(count):
                self._skip(self._numbers("<Q")[0])
            return None
        return [self._value(item, depth + 1) for _ in range(count)]

    # -- bytes ------------------------------------------------------------------------------

    def _numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))

    def _text(self) -> str:
        (length,) = self._numbers("<Q")
        self._text_bytes += length
        if self._text_bytes > _MOST_TEXT:
            raise self._damaged(f"a text has {length} bytes")
        return self._bytes(length).decode(errors="replace")

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise self._damaged("its header ends early")
        self._at += count
        return data

    def _skip(self, count: int) -> None:
        if self._at + count > self._size:
            raise self._damaged("its header ends early")
        self._at += count
        self._file.seek(count, 1)

    def _count(self, count: int) -> None:
        self._items += count
        if self._items > _MOST_ITEMS:
            raise self._damaged(f"its header claims {self._items} entries")

    def _damaged(self, how: str) -> ModelFileError:
        return ModelFileError(
            f"{self._path} is a damaged GGUF file: {how} ({self._size} bytes). Fetch it again"
        )
