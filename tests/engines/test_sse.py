"""Server-sent events come out whole, however their bytes arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzerllm.engines import sse
from byzerllm.engines.sse import EventReader
from byzerllm.errors import StreamError

STREAM = (
    "\ufeff: a comment\n"
    "event: message\nid: 7\nretry: 10\n"
    'data: {"a": "🙂 漢"}\n\n'
    "data:no space\n\n"
    "data:  two spaces\n\n"
    "data: one\ndata: two\n\n"
    ":\n\n\n"
    "data: \n\n"
    "other: field\n\n"
    "data: [DONE]\n\n"
)
EVENTS = ['{"a": "🙂 漢"}', "no space", " two spaces", "one\ntwo", "", "[DONE]"]


def read(blocks: list[bytes]) -> list[str]:
    reader = EventReader()
    found = [event for block in blocks for event in reader.feed(block)]
    return [event.decode() for event in [*found, *reader.end()]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_and_field_is_read(end: str) -> None:
    data = STREAM.replace("\n", end).encode()

    assert read([data]) == EVENTS
    assert read([data[place : place + 1] for place in range(len(data))]) == EVENTS


@given(st.sets(st.integers(0, 250)), st.sampled_from(["\n", "\r\n", "\r"]))
def test_cuts_change_nothing(cuts: set[int], end: str) -> None:
    data = STREAM.replace("\n", end).encode()
    places = [0, *sorted(cuts), len(data)]

    assert read([data[a:b] for a, b in pairwise(places)]) == EVENTS


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1)))
def test_every_text_comes_back(texts: list[str]) -> None:
    assert read([f"data: {text}\n\n".encode() for text in texts]) == texts


def test_an_event_is_out_as_soon_as_its_empty_line_is_in() -> None:
    reader = EventReader()

    assert reader.feed(b"data: a\r\n\r") == [b"a"]
    assert reader.feed(b"\ndata: b\n") == []
    assert reader.feed(b"\n") == [b"b"]


def test_a_last_event_may_lack_its_empty_line_but_not_its_line_end() -> None:
    assert read([b"data: a\n\ndata: [DONE]\n"]) == ["a", "[DONE]"]
    assert read([b'data: a\n\ndata: {"cut']) == ["a"]


@pytest.mark.parametrize("block", [b"x" * 100, b"data: x\n" * 10, b"data: " + b"x" * 50])
def test_an_event_without_end_is_an_error(block: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    reader = EventReader()

    with pytest.raises(StreamError, match="longer than 1000 bytes"):
        list(map(reader.feed, [block] * 1000))


def test_comments_for_ever_are_no_event() -> None:
    reader = EventReader()

    for _ in range(1000):
        assert reader.feed(b": still here\n\n") == []
    assert reader.feed(b"data: a\n\n") == [b"a"]


def test_a_large_event_in_many_small_blocks_is_read_in_linear_time() -> None:
    size = 8 << 20
    blocks = [b"data: ", *([b"x" * 512] * (size // 512)), b"\n\n"]

    (event,) = read(blocks)

    assert len(event) == size
