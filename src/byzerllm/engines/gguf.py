"""Read the header of a GGUF file: is this a model, and which?

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
_LONGEST = 1 << 24
"""No key, text or list of a real header is longer than this."""


@dataclass
class Header:
    """What a GGUF file says of itself."""

    values: dict[str, Any] = field(default_factory=dict)
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
        return int(self.values.get(f"{self.architecture}.context_length", 0))

    @property
    def chat_template(self) -> str:
        return str(self.values.get("tokenizer.chat_template", ""))

    @property
    def is_reranker(self) -> bool:
        """True if the model ends in a classifier, so that its score of a pair has a meaning."""
        return any(name.startswith(("cls.", "cls_", "classifier")) for name in self.tensors) or (
            "cls.weight" in self.tensors
        )


def read_header(path: str | Path) -> Header:
    """Read and check the header.

    Raises:
        ModelFileError: it is no GGUF file, or it is cut off; the message says which.
    """
    path = Path(path)
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
        try:
            return _read(file, path, size)
        except (struct.error, MemoryError, UnicodeDecodeError, EOFError) as error:
            raise ModelFileError(
                f"{path} is a damaged GGUF file: its header ends early ({size} bytes). "
                "Fetch it again"
            ) from error


def _read(file: BinaryIO, path: Path, size: int) -> Header:
    version, tensor_count, value_count = struct.unpack("<IQQ", _bytes(file, 20))
    if version not in (2, 3):
        raise ModelFileError(f"{path} has GGUF version {version}; versions 2 and 3 are known")
    if value_count > _LONGEST or tensor_count > _LONGEST:
        raise ModelFileError(f"{path} is a damaged GGUF file: its header counts are absurd")
    header = Header()
    for _ in range(value_count):
        key = _text(file)
        (kind,) = struct.unpack("<I", _bytes(file, 4))
        header.values[key] = _value(file, kind)
    last = 0
    for _ in range(tensor_count):
        header.tensors.append(_text(file))
        (dimensions,) = struct.unpack("<I", _bytes(file, 4))
        file.seek(8 * dimensions + 4, 1)
        (offset,) = struct.unpack("<Q", _bytes(file, 8))
        last = max(last, offset)
    if file.tell() + last >= size:
        raise ModelFileError(
            f"{path} is cut off: it has {size} bytes and its tensors need more. Fetch it again"
        )
    return header


def _bytes(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", _bytes(file, 8))
    if length > _LONGEST:
        raise EOFError
    return _bytes(file, length).decode()


def _value(file: BinaryIO, kind: int) -> Any:
    if kind in _SCALARS:
        form = "<" + _SCALARS[kind]
        return struct.unpack(form, _bytes(file, struct.calcsize(form)))[0]
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        raise EOFError
    item, count = struct.unpack("<IQ", _bytes(file, 12))
    if count > _LONGEST:
        raise EOFError
    if item in _SCALARS:
        # Long numeric lists (token scores and types) are of no use here.
        file.seek(count * struct.calcsize("<" + _SCALARS[item]), 1)
        return None
    if item == _STRING:
        for _ in range(count):
            (length,) = struct.unpack("<Q", _bytes(file, 8))
            file.seek(length, 1)
        return None
    return [_value(file, item) for _ in range(count)]
