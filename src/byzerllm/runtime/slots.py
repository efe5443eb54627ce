"""Which worker takes the next call: bounded, fair, thread-safe.

A pool has ``workers`` workers of ``per_worker`` slots each. A call asks for a slot, waits in
line while all are taken, and gives it back by closing its lease. A lease whose holder vanished
(garbage collected, or its event loop closed) comes back by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections import deque
from dataclasses import dataclass

from byzerllm.errors import CallAborted, ConfigError, Overloaded

BALANCES = ("lru", "round_robin", "least_loaded")


class Lease:
    """One taken slot. ``close()`` gives it back; closing twice is fine."""

    __slots__ = ("__weakref__", "_give_back", "loop", "worker")

    def __init__(self, pool: SlotPool, worker: int, loop: asyncio.AbstractEventLoop) -> None:
        self.worker = worker
        self.loop = loop
        self._give_back = weakref.finalize(self, pool._release, worker)
        self._give_back.atexit = False

    def close(self) -> None:
        self._give_back()


@dataclass(eq=False)
class _Waiter:
    pin: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Lease]


class SlotPool:
    """The slots of one deployment."""

    def __init__(
        self,
        workers: int,
        per_worker: int,
        *,
        max_waiting: int = 1000,
        balance: str = "lru",
        name: str = "model",
    ) -> None:
        if balance not in BALANCES:
            raise ConfigError(
                f"Unknown load balance {balance!r}; choose one of {', '.join(BALANCES)}"
            )
        if workers < 1 or per_worker < 1:
            raise ConfigError("A deployment needs at least one worker and one slot per worker")
        self.name = name
        self.workers = workers
        self.per_worker = per_worker
        self.max_waiting = max_waiting
        self._balance = balance
        self._lock = threading.RLock()  # re-entered when garbage collection frees a lease
        self._used = [0] * workers
        self._last = [0] * workers
        self._clock = itertools.count(1)
        self._next = 0
        self._waiting: deque[_Waiter] = deque()
        self._open: weakref.WeakSet[Lease] = weakref.WeakSet()
        self._closed = False

    @property
    def in_use(self) -> int:
        return sum(self._used)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take_now(self, pin: int = -1) -> Lease | None:
        """A slot on worker ``pin`` (-1: any) if one is free and nobody waits for it.

        Raises:
            ConfigError: there is no such worker.
        """
        if pin >= self.workers:
            raise ConfigError(
                f"Model {self.name!r} has {self.workers} workers; worker {pin} does not exist. "
                "Correct setup_pin_model_worker_mapping"
            )
        with self._lock:
            if self._waiting:
                return None
            return self._grant(pin, asyncio.get_running_loop())

    async def take(self, pin: int = -1) -> Lease:
        """A slot on worker ``pin`` (-1: any), waiting in line for it.

        Raises:
            Overloaded: the line is full.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            self._reclaim()
            lease = self._grant(pin, loop)
            if lease is not None:
                return lease
            if len(self._waiting) >= self.max_waiting:
                raise Overloaded(
                    f"Model {self.name!r} is full: {self.in_use} calls running, "
                    f"{len(self._waiting)} waiting. Try again later or raise the concurrency"
                )
            waiter = _Waiter(pin, loop, loop.create_future())
            self._waiting.append(waiter)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
            if waiter.future.done() and not waiter.future.cancelled():
                if waiter.future.exception() is None:
                    waiter.future.result().close()
            raise

    def _grant(self, pin: int, loop: asyncio.AbstractEventLoop) -> Lease | None:
        if self._closed:
            raise CallAborted(f"Model {self.name!r} was undeployed")
        worker = self._choose(pin)
        if worker is None:
            return None
        self._used[worker] += 1
        self._last[worker] = next(self._clock)
        lease = Lease(self, worker, loop)
        self._open.add(lease)
        return lease

    def _choose(self, pin: int) -> int | None:
        used, room = self._used, self.per_worker
        if pin >= 0:
            return pin if used[pin] < room else None
        if self.workers == 1:
            return 0 if used[0] < room else None
        free = [worker for worker in range(self.workers) if used[worker] < room]
        if not free:
            return None
        if self._balance == "round_robin":
            worker = min(free, key=lambda worker: (worker - self._next) % self.workers)
            self._next = (worker + 1) % self.workers
            return worker
        if self._balance == "least_loaded":
            return min(free, key=lambda worker: (used[worker], self._last[worker]))
        return min(free, key=lambda worker: self._last[worker])

    def _release(self, worker: int) -> None:
        with self._lock:
            self._used[worker] -= 1
            self._hand_on()

    def _hand_on(self) -> None:
        """Give free slots to those who wait longest."""
        for waiter in list(self._waiting):
            if waiter.loop.is_closed():
                self._waiting.remove(waiter)
                continue
            try:
                lease = self._grant(waiter.pin, waiter.loop)
            except CallAborted:
                return
            if lease is None:
                if waiter.pin < 0:
                    return
                continue
            if waiter not in self._waiting:  # a lease freed meanwhile was handed to it
                lease.close()
                continue
            self._waiting.remove(waiter)
            try:
                waiter.loop.call_soon_threadsafe(_deliver, waiter, lease)
            except RuntimeError:  # closed since we looked
                lease.close()

    def _reclaim(self) -> None:
        """Take back leases of event loops that are closed: their holders cannot return."""
        for lease in list(self._open):
            if lease.loop.is_closed():
                lease.close()

    def close(self) -> None:
        """Turn away all who wait; later calls find the pool closed."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for waiter in waiting:
            if not waiter.loop.is_closed():
                waiter.loop.call_soon_threadsafe(_turn_away, waiter, self.name)


def _deliver(waiter: _Waiter, lease: Lease) -> None:
    if waiter.future.done():
        lease.close()
    else:
        waiter.future.set_result(lease)


def _turn_away(waiter: _Waiter, name: str) -> None:
    if not waiter.future.done():
        waiter.future.set_exception(CallAborted(f"Model {name!r} was undeployed"))
