"""GGUF headers: what a file is, or why it is no model."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byzerllm.engines.gguf import Header, read_header
from byzerllm.errors import ModelFileError


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key: str, kind: int, data: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + data


def array(item: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IQ", item, count) + data


def tensor(name: str, lengths: list[int], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(lengths)}QIQ", len(lengths), *lengths, kind, offset)


ENTRIES = [
    entry("general.architecture", 8, text("llama")),
    entry("general.name", 8, text("Tiny 模型")),
    entry("llama.context_length", 4, struct.pack("<I", 8192)),
    entry("tokenizer.chat_template", 8, text("{{ messages }}")),
    entry("tokenizer.ggml.tokens", 9, array(8, 3, text("a") + text("bc") + text(""))),
    entry("tokenizer.ggml.scores", 9, array(6, 3, struct.pack("<3f", 1, 2, 3))),
    entry("nested", 9, array(9, 2, array(4, 1, struct.pack("<I", 1)) + array(8, 0))),
    entry("flag", 7, b"\1"),
]
TENSORS = [tensor("token_embd.weight", [4, 2]), tensor("output.weight", [32], 3, 32)]


def gguf(
    entries: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: int = 52,
) -> bytes:
    entries = ENTRIES if entries is None else entries
    tensors = TENSORS if tensors is None else tensors
    tensor_count, entry_count = counts or (len(tensors), len(entries))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, entry_count)
    header = head + b"".join(entries) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + bytes(data)


def read(folder: Path, data: bytes) -> Header:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return read_header(path)


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_says_what_the_model_is(tmp_path: Path, version: int) -> None:
    header = read(tmp_path, gguf(version=version))

    assert (header.architecture, header.name) == ("llama", "Tiny 模型")
    assert (header.context_length, header.chat_template) == (8192, "{{ messages }}")
    assert header.tensors == ["token_embd.weight", "output.weight"]
    assert header.values["flag"] is True
    assert not header.is_reranker


@pytest.mark.parametrize("name", ["cls.weight", "cls.output.weight", "classifier.weight"])
def test_a_classifier_at_the_end_makes_a_reranker(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, gguf(tensors=[tensor(name, [1])])).is_reranker


def test_a_header_that_says_nothing_is_read(tmp_path: Path) -> None:
    header = read(tmp_path, gguf([], []))

    assert (header.architecture, header.name, header.context_length) == ("", "", 0)


@pytest.mark.parametrize(
    ("kind", "data"), [(8, text("long")), (6, struct.pack("<f", float("inf"))), (9, array(4, 0))]
)
def test_a_context_length_that_is_no_number_is_not_known(
    tmp_path: Path, kind: int, data: bytes
) -> None:
    entries = [ENTRIES[0], entry("llama.context_length", kind, data)]

    assert read(tmp_path, gguf(entries)).context_length == 0


# -- no models ----------------------------------------------------------------------------------


def test_what_is_not_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        read_header(tmp_path / "nothing.gguf")
    with pytest.raises(ModelFileError, match="is a folder"):
        read_header(tmp_path)
    with pytest.raises(ModelFileError, match=r"cannot be read|does not exist"):
        read_header(tmp_path / ("x" * 5000))
    with pytest.raises(ModelFileError, match="does not exist"):
        read_header(tmp_path / "a\0b")
    with pytest.raises(ModelFileError, match="does not exist"):
        read_header("/dev/zero")


@pytest.mark.parametrize("data", [b"", b"GG", b"PK\3\4 zip", b"#!/bin/sh", b"FUGG", b"\0" * 99])
def test_another_file_is_no_model(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"is not a GGUF model: it starts with.*smollm2"):
        read(tmp_path, data)


@pytest.mark.parametrize("version", [0, 1, 4, 3 << 24])
def test_another_version_is_named(tmp_path: Path, version: int) -> None:
    with pytest.raises(ModelFileError, match=rf"version {version}; versions 2 and 3"):
        read(tmp_path, gguf(version=version))


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    data = gguf()
    for length in range(4, len(data)):
        with pytest.raises(ModelFileError, match=r"damaged|cut off"):
            read(tmp_path, data[:length])
    read(tmp_path, data)


def test_a_cut_in_the_tensors_is_told_in_bytes(tmp_path: Path) -> None:
    data = gguf()

    with pytest.raises(ModelFileError, match=rf"has {len(data) - 1} bytes.*need {len(data)}"):
        read(tmp_path, data[:-1])


def test_the_alignment_is_heeded(tmp_path: Path) -> None:
    entries = [entry("general.alignment", 4, struct.pack("<I", 4096))]

    with pytest.raises(ModelFileError, match=r"cut off.*need 4128"):
        read(tmp_path, gguf(entries, [tensor("a", [8])], data=32))
    for odd in (0, 1 << 31):
        entries = [entry("general.alignment", 5, struct.pack("<I", odd))]
        with pytest.raises(ModelFileError, match="cut off"):
            read(tmp_path, gguf(entries, [tensor("a", [8])], data=0))


HUGE = 1 << 62


@pytest.mark.parametrize(
    "data",
    [
        gguf(counts=(HUGE, 1)),
        gguf(counts=(1, HUGE)),
        gguf(counts=(1 << 22, 1 << 22)),
        gguf([struct.pack("<Q", HUGE)]),
        gguf([entry("a", 8, struct.pack("<Q", HUGE))]),
        gguf([entry("a", 8, struct.pack("<Q", 1 << 24))]),
        gguf([entry("a", 9, array(4, HUGE))]),
        gguf([entry("a", 9, array(8, HUGE))]),
        gguf([entry("a", 9, array(9, HUGE))]),
        gguf([entry("a", 9, array(8, 1, struct.pack("<Q", HUGE)))]),
        gguf([entry("a", 9, array(9, 1) * 10_000)]),
        gguf([entry("a", 9, array(13, 1))]),
        gguf([entry("a", 99, b"")]),
        gguf(tensors=[text("a") + struct.pack("<I", 1 << 31)]),
        gguf(tensors=[tensor("a", [HUGE, HUGE, HUGE])]),
        gguf(tensors=[tensor("a", [8], 0, (1 << 64) - 1)]),
    ],
)
def test_absurd_numbers_are_refused_at_once(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelFileError, match="Fetch it again"):
        read(tmp_path, data)


def test_texts_that_are_no_utf8_do_no_harm(tmp_path: Path) -> None:
    entries = [entry("general.name", 8, struct.pack("<Q", 2) + b"\xff\xfe")]

    assert read(tmp_path, gguf(entries, [])).name == "��"


@settings(max_examples=300, deadline=2000, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_is_a_model_file_error_or_does_no_harm(tmp_path: Path, data: Any) -> None:
    model = bytearray(gguf())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(4, len(model) - 1))
        model[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=9))
    path = tmp_path / "model.gguf"
    path.write_bytes(model)

    try:
        header = read_header(path)
    except ModelFileError:
        return
    assert isinstance(header.context_length, int)
    assert isinstance(header.chat_template, str)


@pytest.mark.local
def test_the_real_model_is_read_and_ends_where_its_tensors_end(
    smollm2: Path, tmp_path: Path
) -> None:
    header = read_header(smollm2)
    cut = tmp_path / "cut.gguf"
    with smollm2.open("rb") as file:
        cut.write_bytes(file.read()[:-1])

    assert (header.architecture, header.context_length) == ("llama", 8192)
    assert "<|im_start|>" in header.chat_template
    with pytest.raises(ModelFileError, match="is cut off"):
        read_header(cut)
