"""What every runtime offers: named deployments, and calls to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from byzerllm.types.engine import Engine, StreamItem
from byzerllm.types.records import Generate, Reply, Request


@dataclass
class DeploySpec:
    """One model to bring up: how to make its engine, and how many of it."""

    name: str
    make_engine: Callable[[], Engine]
    workers: int = 1
    per_worker: int | None = None
    """Calls that one worker takes at once; ``None`` = what the engine says of itself."""
    max_waiting: int = 1000
    balance: str = "lru"


class Runtime(Protocol):
    """Where engines live. Every method but the plain look-ups is a coroutine."""

    def exists(self, name: str) -> bool:
        """Is a model of this name deployed?"""

    def names(self) -> list[str]:
        """The deployed models, oldest first."""

    def generation(self, name: str) -> int:
        """Grows with every deployment, so that what was remembered of an older one is dropped.

        0 where no such model is deployed.
        """

    async def deploy(self, spec: DeploySpec, *, replace: bool = False) -> None:
        """Bring the model up; when this returns it has answered."""

    async def undeploy(self, name: str) -> None:
        """Stop the model and free its resources; no error if there is none."""

    async def call(self, request: Request, *, pin: int = -1, timeout: float | None = None) -> Reply:
        """Run a request on a free worker (or on worker ``pin``)."""

    def stream(
        self, request: Generate, *, pin: int = -1, timeout: float | None = None
    ) -> AsyncIterator[StreamItem]:
        """Run a generation piece by piece; closing the iterator ends it."""

    async def abort(self, request_id: str, name: str) -> bool:
        """End the call of that id, waiting or running; False if there is none."""
