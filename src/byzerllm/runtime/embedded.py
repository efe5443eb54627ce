"""The embedded runtime: deployments that live in this process and are shared by its clients."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable

from byzerllm import portal
from byzerllm.errors import (
    ByzerError,
    CallAborted,
    CallError,
    CallTimeout,
    DeployError,
    ModelExists,
    ModelNotFound,
)
from byzerllm.runtime.base import DeploySpec
from byzerllm.runtime.interrupt import Interrupt
from byzerllm.runtime.slots import Lease, SlotPool
from byzerllm.runtime.worker import Worker
from byzerllm.types.engine import StreamItem
from byzerllm.types.records import Generate, Reply, Request
from byzerllm.types.sampling import bare

logger = logging.getLogger(__name__)


class Deployment:
    """One model: its workers, their slots, and the calls that wait or run."""

    def __init__(self, spec: DeploySpec, generation: int) -> None:
        self.name = spec.name
        self.generation = generation
        self.workers = [Worker(spec.make_engine()) for _ in range(spec.workers)]
        per_worker = spec.per_worker or self.workers[0].engine.concurrency
        self.pool = SlotPool(
            spec.workers,
            per_worker,
            max_waiting=spec.max_waiting,
            balance=spec.balance,
            name=spec.name,
        )
        self._calls: dict[str, Interrupt] = {}
        self._numbers = itertools.count()

    async def load(self) -> None:
        await asyncio.gather(*(worker.engine.load() for worker in self.workers))

    async def call(self, request: Request, pin: int, timeout: float | None) -> Reply:
        interrupt, key = self._begin(request, timeout)
        try:
            with interrupt:
                lease = self.pool.take_now(pin) or await self.pool.take(pin)
                try:
                    return await self.workers[lease.worker].call(request)
                finally:
                    lease.close()
        finally:
            self._end(interrupt, key)

    async def stream(
        self, request: Generate, pin: int, timeout: float | None
    ) -> AsyncIterator[StreamItem]:
        source: AsyncIterator[StreamItem] | None = None
        lease: Lease | None = None
        cleaning: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()

        def stop() -> None:
            cleaning.append(loop.create_task(_let_go(source, lease)))

        interrupt, key = self._begin(request, timeout, stop)
        try:
            with interrupt:
                lease = self.pool.take_now(pin) or await self.pool.take(pin)
            source = self.workers[lease.worker].stream(request)
            step = source.__anext__
            while True:
                try:
                    with interrupt:
                        item = await step()
                except StopAsyncIteration:
                    break
                yield item
        finally:
            self._end(interrupt, key)
            if cleaning:
                await cleaning[0]
            else:
                await _let_go(source, lease)

    def _begin(
        self, request: Request, timeout: float | None, when_idle: Callable[[], None] | None = None
    ) -> tuple[Interrupt, str]:
        late = None
        if timeout is not None:
            late = CallTimeout(
                f"{self.name} gave no answer within {timeout:g} s; "
                "raise llm_config={'timeout_s': …} if it needs longer"
            )
        interrupt = Interrupt(timeout, late, when_idle)
        key = request_id(request) or f"#{next(self._numbers)}"
        if self._calls.setdefault(key, interrupt) is not interrupt:
            raise CallError(f"A call with the request_id {key!r} is running already")
        return interrupt, key

    def _end(self, interrupt: Interrupt, key: str) -> None:
        interrupt.close()
        self._calls.pop(key, None)

    @property
    def running(self) -> int:
        return len(self._calls)

    async def abort(self, request_id: str) -> bool:
        interrupt = self._calls.get(request_id)
        if interrupt is None:
            return False
        interrupt.end(CallAborted(f"The call {request_id} was aborted"))
        for worker in self.workers:
            await worker.engine.abort(request_id)
        return True

    async def close(self) -> None:
        self.pool.close()
        for interrupt in list(self._calls.values()):
            interrupt.end(CallAborted(f"Model {self.name!r} was undeployed during the call"))
        closing = [worker.engine.close() for worker in self.workers]
        for problem in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(problem, BaseException):
                raise problem


async def _let_go(source: AsyncIterator[StreamItem] | None, lease: Lease | None) -> None:
    try:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
    finally:
        if lease is not None:
            lease.close()


def request_id(request: Request) -> str:
    """The id that the caller gave this request, if any."""
    for key, value in request.params.items():
        if bare(key) == "request_id" and value:
            return str(value)
    return ""


class EmbeddedRuntime:
    """Implements :class:`byzerllm.runtime.base.Runtime` in this process."""

    def __init__(self) -> None:
        self._deployments: dict[str, Deployment] = {}
        self._lock = threading.Lock()
        self._generations = itertools.count(1)
        self._exit_hook = False

    def exists(self, name: str) -> bool:
        return name in self._deployments

    def names(self) -> list[str]:
        return list(self._deployments)

    def generation(self, name: str) -> int:
        deployment = self._deployments.get(name)
        return deployment.generation if deployment else 0

    def deployment(self, name: str) -> Deployment:
        """The deployment of that name.

        Raises:
            ModelNotFound: there is none; the message lists those there are.
        """
        deployment = self._deployments.get(name)
        if deployment is None:
            raise ModelNotFound(name, self.names())
        return deployment

    async def deploy(self, spec: DeploySpec, *, replace: bool = False) -> None:
        if self.exists(spec.name) and not replace:
            raise ModelExists(
                f"A model named {spec.name!r} is deployed already; "
                f"undeploy it first or pass replace=True"
            )
        # Old plug-ins load their weights in the constructor: not on anybody's event loop.
        deployment = await portal.in_thread(lambda: Deployment(spec, next(self._generations)))
        await portal.over(self._bring_up(deployment))
        with self._lock:
            taken = self._deployments.get(spec.name)
            if taken is None or replace:
                self._deployments[spec.name] = deployment
            if not self._exit_hook:
                self._exit_hook = True
                atexit.register(self._at_exit)
        if taken is not None:
            # Replacing puts the new model in place first, so that no call finds none.
            await portal.over((taken if replace else deployment).close())
            if not replace:
                raise ModelExists(f"A model named {spec.name!r} was deployed meanwhile")

    async def _bring_up(self, deployment: Deployment) -> None:
        try:
            await deployment.load()
        except BaseException as error:
            try:
                await deployment.close()
            except Exception:
                logger.exception("Closing the engine that failed to load failed too")
            if isinstance(error, ByzerError) or not isinstance(error, Exception):
                raise
            raise DeployError(
                f"The model {deployment.name!r} did not come up: {type(error).__name__}: {error}"
            ) from error

    async def undeploy(self, name: str) -> None:
        with self._lock:
            deployment = self._deployments.pop(name, None)
        if deployment is not None:
            await portal.over(deployment.close())

    async def call(self, request: Request, *, pin: int = -1, timeout: float | None = None) -> Reply:
        return await self.deployment(request.model).call(request, pin, timeout)

    def stream(
        self, request: Generate, *, pin: int = -1, timeout: float | None = None
    ) -> AsyncIterator[StreamItem]:
        return self.deployment(request.model).stream(request, pin, timeout)

    async def abort(self, request_id: str, name: str) -> bool:
        return await self.deployment(name).abort(request_id)

    def _at_exit(self) -> None:
        for name in self.names():
            started = time.monotonic()
            try:
                portal.run(self.undeploy(name))
            except Exception as error:
                logger.warning("Undeploying %s at exit failed: %s", name, error)
            logger.debug("Undeployed %s in %.2f s", name, time.monotonic() - started)
