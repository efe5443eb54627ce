"""Registering handlers, and finding those of one call.

::

    @llm.on.before_model(role="guard")
    def ask(event: BeforeModel) -> Answer | None: ...

    ask.remove()

Roles set order and failure: *edit* handlers first, then *guard*, then *observe*. An edit or a
guard that raises stops the call; an observer that raises is logged and counted, and observers
run even when a guard has answered or refused.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from byzerllm.errors import ConfigError
from byzerllm.events.payloads import (
    AfterCall,
    AfterModel,
    BeforeCall,
    BeforeModel,
    EndCall,
    ModelError,
    Progress,
    StreamChunk,
)
from byzerllm.events.verdicts import Answer, Deny, Drop, Recover, Retry, Stop
from byzerllm.types.records import ALL_KINDS, GENERATION_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

ROLES = ("edit", "guard", "observe")
_TITLES = {
    "old_before": "BEFORE_CALL_MODEL callback",
    "old_after": "AFTER_CALL_MODEL callback",
}
E = TypeVar("E")
V = TypeVar("V")

_numbers = itertools.count()


@dataclass(eq=False)
class Subscription(Generic[E, V]):
    """A registered handler: still callable, and removable."""

    event: str
    handler: Callable[[E], V | Awaitable[V]]
    role: str
    kinds: frozenset[str]
    order: float = 0
    timeout: float | None = None
    failures: int = 0
    """How often it raised; counted for observers, whose errors go no further."""
    number: int = field(default_factory=lambda: next(_numbers))
    home: Hooks | None = field(default=None, repr=False)

    def __call__(self, event: E) -> V | Awaitable[V]:
        return self.handler(event)

    def remove(self) -> None:
        """Register it no longer; calls that are under way keep it. Safe to repeat."""
        if self.home is not None:
            self.home.discard(self)

    @property
    def label(self) -> str:
        """How errors name this handler."""
        name = getattr(self.handler, "__qualname__", None) or repr(self.handler)
        return f"the {_TITLES.get(self.event, self.event + ' handler')} {name}"


class Installable(Protocol):
    """A bundle of handlers, such as ``HumanModel``: it registers itself."""

    def install(self, on: On) -> None: ...


class Hooks:
    """A set of handlers. Readers never wait: every change makes new tuples."""

    def __init__(self, *bundles: Installable) -> None:
        self._table: dict[str, tuple[Subscription[Any, Any], ...]] = {}
        self._lock = threading.Lock()
        self.on = On(self)
        for bundle in bundles:
            install = getattr(bundle, "install", None)
            if install is None:
                raise ConfigError(
                    f"{bundle!r} is no handler bundle: it has no install(on). "
                    "Functions are registered with llm.on.<event>(function)"
                )
            install(self.on)

    def __bool__(self) -> bool:
        return bool(self._table)

    def add(self, subscription: Subscription[Any, Any]) -> None:
        with self._lock:
            subscription.home = self
            present = self._table.get(subscription.event, ())
            self._table = {**self._table, subscription.event: (*present, subscription)}

    def discard(self, subscription: Subscription[Any, Any]) -> None:
        with self._lock:
            left = tuple(
                other
                for other in self._table.get(subscription.event, ())
                if other is not subscription
            )
            table = {
                name: found for name, found in self._table.items() if name != subscription.event
            }
            if left:
                table[subscription.event] = left
            self._table = table

    def get(self, event: str) -> tuple[Subscription[Any, Any], ...]:
        return self._table.get(event, ())


class Hook(Generic[E, V]):
    """``llm.on.<event>``: registers handlers of one event, as a function or a decorator."""

    def __init__(self, event: str, hooks: Hooks, role: str) -> None:
        self._event = event
        self._hooks = hooks
        self._role = role

    @overload
    def __call__(self, handler: Callable[[E], V | Awaitable[V]], /) -> Subscription[E, V]: ...

    @overload
    def __call__(
        self,
        handler: None = None,
        /,
        *,
        role: str | None = None,
        kinds: Iterable[str] | str | None = None,
        order: float = 0,
        timeout: float | None = None,
    ) -> Callable[[Callable[[E], V | Awaitable[V]]], Subscription[E, V]]: ...

    def __call__(
        self,
        handler: Callable[[E], V | Awaitable[V]] | None = None,
        /,
        *,
        role: str | None = None,
        kinds: Iterable[str] | str | None = None,
        order: float = 0,
        timeout: float | None = None,
    ) -> Any:
        """Register a handler.

        Args:
            role: ``edit``, ``guard`` or ``observe``.
            kinds: the kinds of request it is for: names of ``CallContext.kind``, or ``"all"``.
                Generations (chat and completion) unless told otherwise.
            order: within its role, smaller runs first (after-events: last).
            timeout: seconds it may take; an edit or guard that takes longer stops the call.
        """
        role = role or self._role
        if role not in ROLES:
            raise ConfigError(f"role={role!r} is none of {', '.join(ROLES)}")
        if self._role == "observe" and role != "observe":
            raise ConfigError(f"{self._event} can only be observed")

        def register(handler: Callable[[E], V | Awaitable[V]]) -> Subscription[E, V]:
            if not callable(handler):
                raise ConfigError(f"{handler!r} is not callable, so it cannot handle {self._event}")
            subscription = Subscription(
                self._event, handler, role, read_kinds(kinds), order, timeout
            )
            self._hooks.add(subscription)
            return subscription

        return register if handler is None else register(handler)


def read_kinds(kinds: Iterable[str] | str | None) -> frozenset[str]:
    """Kinds of request as users write them."""
    if kinds is None:
        return GENERATION_KINDS
    if kinds == "all":
        return ALL_KINDS
    found = frozenset([kinds] if isinstance(kinds, str) else kinds)
    if not found <= ALL_KINDS:
        raise ConfigError(
            f"Unknown kind of request {', '.join(sorted(found - ALL_KINDS))}; "
            f"there are {', '.join(sorted(ALL_KINDS))}, and 'all'"
        )
    return found


class On:
    """The events one can listen to. Which verdicts each allows is in its type."""

    def __init__(self, hooks: Hooks) -> None:
        self.before_call: Hook[BeforeCall, BeforeCall | Answer | Deny | None] = Hook(
            "before_call", hooks, "guard"
        )
        self.after_call: Hook[AfterCall, AfterCall | Deny | None] = Hook(
            "after_call", hooks, "guard"
        )
        self.end_call: Hook[EndCall, None] = Hook("end_call", hooks, "observe")
        self.before_model: Hook[BeforeModel, BeforeModel | Answer | Deny | None] = Hook(
            "before_model", hooks, "guard"
        )
        self.chunk: Hook[StreamChunk, StreamChunk | Drop | Stop | None] = Hook(
            "chunk", hooks, "edit"
        )
        self.after_model: Hook[AfterModel, AfterModel | Deny | Retry | None] = Hook(
            "after_model", hooks, "guard"
        )
        self.model_error: Hook[ModelError, Recover | None] = Hook("model_error", hooks, "guard")
        self.progress: Hook[Progress, None] = Hook("progress", hooks, "observe")


GLOBAL = Hooks()
"""Handlers of every client in this process: ``byzerllm.on``."""

_scopes: ContextVar[tuple[tuple[object, Hooks], ...]] = ContextVar("byzerllm_hooks", default=())
# Context variables follow tasks, and threads that copy their context; other threads start with
# none.


@contextmanager
def scope(owner: object, hooks: Hooks) -> Iterator[Hooks]:
    """Add ``hooks`` to the calls that ``owner`` makes inside the ``with`` block."""
    token = _scopes.set((*_scopes.get(), (owner, hooks)))
    try:
        yield hooks
    finally:
        _scopes.reset(token)


class Handlers:
    """The handlers of one call, of all its scopes, as they are when the call begins."""

    def __init__(self, layers: list[Hooks], kind: str) -> None:
        self._layers = layers
        self._kind = kind
        self._found: dict[tuple[str, bool], list[Subscription[Any, Any]]] = {}

    def of(self, event: str, *, reverse: bool = False) -> list[Subscription[Any, Any]]:
        """In the order they run: by role, then ``order``, then scope, then registration.

        ``reverse`` turns the order within each role: after-events unwind, so that the last to
        see the request is the first to see the reply.
        """
        found = self._found.get((event, reverse))
        if found is None:
            found = self._found[event, reverse] = self._sorted(event, reverse)
        return found

    def _sorted(self, event: str, reverse: bool) -> list[Subscription[Any, Any]]:
        rows = [
            (handler.order, depth, handler.number, handler)
            for depth, hooks in enumerate(self._layers)
            for handler in hooks.get(event)
            if self._kind in handler.kinds
        ]
        rows.sort(key=lambda row: row[:-1], reverse=reverse)
        return sorted((row[-1] for row in rows), key=lambda handler: ROLES.index(handler.role))


Scopes = tuple[tuple[object, Hooks], ...]


def current_scopes() -> Scopes:
    """The ``with llm.hooks(...)`` blocks around the running code."""
    return _scopes.get()


def handlers_for(
    owner: object, own: Hooks, call: Hooks | None, kind: str, scopes: Scopes
) -> Handlers | None:
    """The handlers of a call that ``owner`` makes in ``scopes``; ``None`` if there are none."""
    if not (own or GLOBAL or scopes or call):
        return None
    layers = [GLOBAL, own, *(hooks for who, hooks in scopes if who is owner)]
    if call is not None:
        layers.append(call)
    return Handlers(layers, kind)
