"""What a handler may answer. ``None`` always means: go on."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Skip the model: this is the answer. After-events fire as for a model's reply.

    ``value`` is a text (or, for other kinds of request, what the engine would have given);
    ``by`` says who answered.
    """

    value: Any
    by: str = "hook"


@dataclass(frozen=True)
class Deny:
    """Refuse the call: the caller gets ``CallDenied`` with this reason."""

    reason: str = ""


@dataclass(frozen=True)
class Retry:
    """Ask the model again, showing it its answer and this feedback.

    ``model`` asks another deployed model instead. Bounded (``setup_max_retries``), refused once
    a piece of a stream has reached the caller, and never done to an answer of a person.
    """

    feedback: str
    model: str | None = None


@dataclass(frozen=True)
class Recover:
    """Swallow the error: this value is the reply."""

    value: Any
    by: str = "hook"


class Drop(enum.Enum):
    """The type of :data:`DROP`."""

    DROP = "drop"


DROP = Drop.DROP
"""Take this piece out of the stream."""


@dataclass(frozen=True)
class Stop:
    """End the stream here; what has been yielded stands."""

    reason: str = ""
