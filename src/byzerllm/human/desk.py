"""The only place where a call waits for a person.

A question becomes a ticket; whatever shows it to people ends in ``desk.resolve``. A ticket is
resolved once: whoever comes later is told so.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field

from byzerllm.errors import ConfigError
from byzerllm.events.payloads import BeforeModel
from byzerllm.events.verdicts import Answer, Deny

Verdict = BeforeModel | Answer | Deny | None
"""What a person can decide: another request, an answer, a refusal, or send it as it is."""


@dataclass(eq=False)
class Ticket:
    """One question to a person."""

    number: int
    event: BeforeModel
    verdict: Verdict = None
    error: BaseException | None = None
    _done: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def resolved(self) -> bool:
        return self._done.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is resolved; False if that took longer than ``timeout`` seconds."""
        return self._done.wait(timeout)


class Desk:
    """The tickets that wait."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, Ticket] = {}
        self._lock = threading.Lock()

    def open(self, event: BeforeModel) -> Ticket:
        """A new ticket for a request that is about to be sent."""
        ticket = Ticket(next(self._numbers), event)
        with self._lock:
            self._open[ticket.number] = ticket
        return ticket

    @property
    def waiting(self) -> list[Ticket]:
        """The open tickets, oldest first."""
        return list(self._open.values())

    def resolve(self, ticket: Ticket, verdict: Verdict) -> None:
        """Decide a ticket.

        Raises:
            ConfigError: it was decided already, or given up.
        """
        self._finish(ticket, verdict, None)

    def fail(self, ticket: Ticket, error: BaseException) -> None:
        """No person can decide it: the call fails with this error."""
        self._finish(ticket, None, error)

    def drop(self, ticket: Ticket, error: BaseException) -> None:
        """Like ``fail``, for a call that is gone; nothing happens if it was resolved already."""
        if self.give_up(ticket):
            ticket.error = error
            ticket._done.set()

    def _finish(self, ticket: Ticket, verdict: Verdict, error: BaseException | None) -> None:
        with self._lock:
            if self._open.pop(ticket.number, None) is None:
                raise ConfigError(f"Ticket {ticket.number} was resolved already, or given up")
            ticket.verdict, ticket.error = verdict, error
        ticket._done.set()

    def give_up(self, ticket: Ticket) -> bool:
        """Nobody waits for it any more; False if it was resolved in the meantime."""
        with self._lock:
            return self._open.pop(ticket.number, None) is not None


DESK = Desk()
"""The desk of this process."""
