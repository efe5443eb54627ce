"""The embedded runtime: deployments that live in this process and are shared by its clients."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from byzerllm import portal
from byzerllm.errors import (
    ByzerError,
    CallAborted,
    CallTimeout,
    ConfigError,
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
from byzerllm.types.sampling import bare, truth

logger = logging.getLogger(__name__)

RETIRE_WITHIN = 600.0
"""Seconds that calls in flight get when their model is replaced."""


class Deployment:
    """One model: its workers, their slots, and the calls that wait or run."""

    def __init__(self, spec: DeploySpec, generation: int) -> None:
        self.name = spec.name
        self.generation = generation
        self.workers: list[Worker] = []
        self._spec = spec
        self._calls: dict[int, tuple[str, Interrupt]] = {}
        self._numbers = itertools.count()
        self.pool = self._slots(1)

    def _slots(self, per_worker: int) -> SlotPool:
        spec = self._spec
        return SlotPool(
            spec.workers,
            spec.per_worker or per_worker,
            max_waiting=spec.max_waiting,
            balance=spec.balance,
            name=spec.name,
        )

    def _make_engines(self) -> None:
        for _ in range(self._spec.workers):
            engine = self._spec.make_engine()
            if any(worker.engine is engine for worker in self.workers):
                raise ConfigError(
                    "One Engine object is one worker; give deploy its class, or a single worker"
                )
            self.workers.append(Worker(engine))

    async def load(self) -> None:
        # Old plug-ins load their weights in the constructor: not on anybody's event loop.
        await portal.in_thread(self._make_engines)
        self.pool = self._slots(self.workers[0].engine.concurrency)
        await asyncio.gather(*(worker.engine.load() for worker in self.workers))

    async def call(self, request: Request, pin: int, timeout: float | None) -> Reply:
        if _setting(request, "abort") and truth(_setting(request, "abort")):
            return Reply(str(await self.abort(request_id(request))), finish_reason="stop")
        number, interrupt = self._begin(request, timeout)
        try:
            with interrupt:
                lease = self.pool.take_now(pin) or await self.pool.take(pin)
                try:
                    return await self.workers[lease.worker].call(request)
                finally:
                    lease.close()
        finally:
            self._end(number)

    async def stream(
        self, request: Generate, pin: int, timeout: float | None
    ) -> AsyncIterator[StreamItem]:
        source: AsyncIterator[StreamItem] | None = None
        lease: Lease | None = None
        cleaning: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()

        def stop() -> None:
            cleaning.append(loop.create_task(_let_go(source, lease)))

        number, interrupt = self._begin(request, timeout, stop)
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
            self._end(number)
            if cleaning:
                await cleaning[0]
            else:
                await _let_go(source, lease)

    def _begin(
        self, request: Request, timeout: float | None, when_idle: Callable[[], None] | None = None
    ) -> tuple[int, Interrupt]:
        late = None
        if timeout is not None:
            late = CallTimeout(
                f"{self.name} gave no answer within {timeout:g} s; "
                "raise llm_config={'timeout_s': …} if it needs longer"
            )
        number, interrupt = next(self._numbers), Interrupt(timeout, late, when_idle)
        self._calls[number] = (request_id(request), interrupt)
        return number, interrupt

    def _end(self, number: int) -> None:
        found = self._calls.pop(number, None)
        if found is not None:  # a forked child has forgotten the calls of its parent
            found[1].close()

    @property
    def running(self) -> int:
        return len(self._calls)

    async def abort(self, request_id: str) -> bool:
        found = [call for name, call in list(self._calls.values()) if name == request_id]
        for interrupt in found:
            interrupt.end(CallAborted(f"The call {request_id} was aborted"))
        if found:
            for worker in self.workers:
                await worker.engine.abort(request_id)
        return bool(found)

    async def retire(self) -> None:
        """Close once the calls in flight are done; another deployment takes the new ones."""
        deadline = time.monotonic() + RETIRE_WITHIN
        while self._calls and time.monotonic() < deadline:  # noqa: ASYNC110  # on many loops
            await asyncio.sleep(0.02)
        await self.close()

    async def close(self) -> None:
        self.pool.close()
        for _, interrupt in list(self._calls.values()):
            interrupt.end(CallAborted(f"Model {self.name!r} was undeployed during the call"))
        closing = [worker.engine.close() for worker in self.workers]
        for problem in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(problem, BaseException):
                raise problem

    def forget_calls(self) -> None:
        """In a forked child: the calls of the parent are not ours."""
        self._calls = {}
        self.pool = self._slots(self.pool.per_worker)


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
    return str(_setting(request, "request_id") or "")


def _setting(request: Request, name: str) -> Any:
    for key, value in request.params.items():
        if bare(key) == name:
            return value
    return None


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
        deployment = Deployment(spec, next(self._generations))
        await portal.over(self._bring_up(deployment))
        with self._lock:
            taken = self._deployments.get(spec.name)
            if taken is None or replace:
                self._deployments[spec.name] = deployment
            if not self._exit_hook:
                self._exit_hook = True
                atexit.register(self._at_exit)
        if taken is None:
            return
        if not replace:
            await portal.over(deployment.close())
            raise ModelExists(f"A model named {spec.name!r} was deployed meanwhile")
        if taken.running:
            # The new model takes all new calls; those in flight end where they began.
            asyncio.run_coroutine_threadsafe(taken.retire(), portal.loop())
        else:
            await portal.over(taken.close())

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

    def forget_calls(self) -> None:
        """After a fork, in the child: deployments stay, calls and the duty to close do not."""
        atexit.unregister(self._at_exit)
        self._lock = threading.Lock()
        for deployment in self._deployments.values():
            deployment.forget_calls()

    def _at_exit(self) -> None:
        for name in self.names():
            started = time.monotonic()
            try:
                portal.run(self.undeploy(name))
            except Exception as error:
                logger.warning("Undeploying %s at exit failed: %s", name, error)
            logger.debug("Undeployed %s in %.2f s", name, time.monotonic() - started)
