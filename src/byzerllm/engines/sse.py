"""Server-sent events out of bytes as they arrive, however they are cut.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from byzerllm.errors import StreamError

MAX_EVENT = 32 << 20
"""Bytes of one event; more than this is no event of a model."""

_BOM = b"\xef\xbb\xbf"


class EventReader:
    """Feed it blocks; it gives back the ``data`` of the events that they complete.

    Names, ids and comments are skipped: the wire formats of models say everything in ``data``.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []
        """The pieces of a line whose end has not come yet."""
        self._data: list[bytes] = []
        """The ``data`` lines of an event whose end has not come yet."""
        self._held = 0
        """Bytes in both."""
        self._first = True
        self._after_cr = False

    def feed(self, block: bytes) -> list[bytes]:
        """The data of every event that ends in this block.

        Raises:
            StreamError: an event without end.
        """
        if self._after_cr and block:
            # The CR ended its line; if this begins with the LF of a CRLF, that line is over.
            self._after_cr = False
            block = block.removeprefix(b"\n")
        if b"\r" in block:
            self._after_cr = block.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = block.split(b"\n")
        found: list[bytes] = []
        if lines:
            if self._line:
                lines[0] = b"".join(self._line) + lines[0]
                self._line.clear()
            if self._first:
                self._first = False
                lines[0] = lines[0].removeprefix(_BOM)
            data = self._data
            for line in lines:
                if line.startswith(b"data:"):
                    data.append(line[6:] if line[5:6] == b" " else line[5:])
                elif not line and data:
                    found.append(data[0] if len(data) == 1 else b"\n".join(data))
                    data.clear()
            self._held = sum(map(len, data))
        if rest:
            self._line.append(rest)
            self._held += len(rest)
        if self._held > MAX_EVENT:
            raise StreamError(f"A streamed event is longer than {MAX_EVENT} bytes")
        return found

    def end(self) -> list[bytes]:
        """The data of an event whose last line came whole, and the empty line after it did not.

        Some servers leave that line out at the end of the stream. A line that is cut off is
        dropped, as the standard says.
        """
        return [b"\n".join(self._data)] if self._data else []
