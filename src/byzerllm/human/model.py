"""A person in the model's place, as a bundle of handlers.

::

    with llm.hooks(HumanModel(surface="terminal")):
        llm.chat_oai(conversation)
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Protocol

from byzerllm import portal
from byzerllm.errors import CallAborted, ConfigError, HumanUnavailable
from byzerllm.events.hooks import On
from byzerllm.events.payloads import BeforeModel
from byzerllm.events.verdicts import Answer
from byzerllm.human.desk import DESK, Desk, Ticket, Verdict
from byzerllm.human.terminal import TerminalSurface

OnTimeout = str | Answer


class Surface(Protocol):
    """Something that shows tickets to people and calls ``desk.resolve`` with what they decide."""

    def present(self, ticket: Ticket, desk: Desk) -> None:
        """Show the ticket; may return before it is resolved."""


class HumanModel:
    """Asks a person before each generation; they answer, edit, let it pass or refuse.

    Args:
        surface: ``"terminal"``, or an object with ``present(ticket, desk)``.
        when: which requests go to a person; all generations if left out.
        timeout: seconds to wait for a person; ``None`` waits as long as it takes.
        on_timeout: what then happens: ``"deny"`` (an error that says so), ``"model"`` (send
            it), or an ``Answer``.
    """

    def __init__(
        self,
        *,
        surface: str | Surface = "terminal",
        when: Callable[[BeforeModel], bool] | None = None,
        timeout: float | None = None,
        on_timeout: OnTimeout = "deny",
        desk: Desk = DESK,
    ) -> None:
        if surface == "terminal":
            surface = TerminalSurface()
        if isinstance(surface, str):
            raise ConfigError(f"There is no surface {surface!r}; there is 'terminal'")
        if isinstance(on_timeout, str) and on_timeout not in ("deny", "model"):
            raise ConfigError(f"on_timeout={on_timeout!r}; write 'deny', 'model' or an Answer")
        self._surface = surface
        self._when = when
        self._timeout = timeout
        self._on_timeout = on_timeout
        self._desk = desk

    def install(self, on: On) -> None:
        """Register as a guard that runs behind all other guards."""
        on.before_model(role="guard", order=1000)(self.ask)

    def ask(self, event: BeforeModel) -> Verdict:
        """The verdict of a person on a request that is about to be sent."""
        if event.ctx.attempt > 1:
            return None  # a person decides once for a call; a retry does what they decided
        if self._when is not None and not self._when(event):
            return None
        ticket = self._desk.open(event)
        asker = portal.abandoned.get()
        if asker is not None:  # an async call that is cancelled leaves no ticket and no thread
            asker.add(lambda: self._desk.drop(ticket, CallAborted("The call was cancelled")))
        left = portal.Abandoned()
        try:
            self._present(ticket, left)
            in_time = ticket.wait(self._timeout)
        finally:
            given_up = self._desk.give_up(ticket)
            left.set()
        if not in_time and given_up:
            return self._too_late()
        if ticket.error is not None:
            raise ticket.error
        return ticket.verdict

    def _present(self, ticket: Ticket, left: portal.Abandoned) -> None:
        if self._timeout is None:
            self._surface.present(ticket, self._desk)
            return
        # A surface that reads in place cannot be interrupted, so it gets a thread to be left in.
        context = contextvars.copy_context()
        context.run(portal.abandoned.set, left)
        threading.Thread(
            target=context.run, args=(self._surface.present, ticket, self._desk), daemon=True
        ).start()

    def _too_late(self) -> Verdict:
        if isinstance(self._on_timeout, Answer):
            return self._on_timeout
        if self._on_timeout == "model":
            return None
        raise HumanUnavailable(f"No person answered within {self._timeout:g} s")
