"""Which worker takes the next call."""

from __future__ import annotations

import asyncio
import gc

import pytest

from byzerllm.errors import CallAborted, ConfigError, Overloaded
from byzerllm.runtime.slots import Lease, SlotPool


async def take(pool: SlotPool, pin: int = -1) -> Lease:
    return pool.take_now(pin) or await pool.take(pin)


async def workers_taken(pool: SlotPool, count: int) -> list[int]:
    leases = [await take(pool) for _ in range(count)]
    return [lease.worker for lease in leases]


def test_lru_takes_the_worker_that_was_idle_for_longest() -> None:
    async def main() -> None:
        pool = SlotPool(3, 2)
        first, second, third = [await take(pool) for _ in range(3)]
        assert [first.worker, second.worker, third.worker] == [0, 1, 2]
        assert (await take(pool)).worker == 0
        third.close()
        assert (await take(pool)).worker == 1

    asyncio.run(main())


def test_round_robin_goes_round() -> None:
    async def main() -> list[int]:
        pool = SlotPool(3, 10, balance="round_robin")
        held = [await take(pool) for _ in range(7)]
        return [lease.worker for lease in held]

    assert asyncio.run(main()) == [0, 1, 2, 0, 1, 2, 0]


def test_round_robin_skips_a_full_worker() -> None:
    async def main() -> None:
        pool = SlotPool(2, 1, balance="round_robin")
        zero = await take(pool)
        one = await take(pool)
        one.close()
        assert (zero.worker, (await take(pool)).worker) == (0, 1)

    asyncio.run(main())


def test_least_loaded_takes_the_worker_with_most_room() -> None:
    async def main() -> None:
        pool = SlotPool(2, 10, balance="least_loaded")
        held = [await take(pool, pin=0) for _ in range(3)]
        assert [(await take(pool)).worker] == [1]
        assert len(held) == 3

    asyncio.run(main())


def test_a_pinned_call_waits_for_its_worker_and_others_pass_it() -> None:
    async def main() -> None:
        pool = SlotPool(2, 1)
        zero = await take(pool, pin=0)
        pinned = asyncio.ensure_future(pool.take(0))
        await asyncio.sleep(0)
        other = await take(pool)
        assert other.worker == 1
        other.close()
        await asyncio.sleep(0.01)
        assert not pinned.done()
        zero.close()
        assert (await asyncio.wait_for(pinned, 5)).worker == 0

    asyncio.run(main())


def test_a_worker_that_does_not_exist_is_named() -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="worker 5 does not exist"):
            await take(SlotPool(2, 1), pin=5)

    asyncio.run(main())


def test_those_who_wait_are_served_in_order() -> None:
    async def main() -> None:
        pool = SlotPool(1, 1)
        served: list[int] = []

        async def call(number: int) -> None:
            lease = await take(pool)
            served.append(number)
            await asyncio.sleep(0)
            lease.close()

        await asyncio.gather(*(call(number) for number in range(20)))
        assert served == list(range(20))
        assert (pool.in_use, pool.waiting) == (0, 0)

    asyncio.run(main())


def test_a_full_line_turns_away() -> None:
    async def main() -> None:
        pool = SlotPool(1, 1, max_waiting=2)
        held = await take(pool)
        waiting = [asyncio.ensure_future(pool.take()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="1 calls running, 2 waiting"):
            await pool.take()
        held.close()
        (await waiting[0]).close()
        (await waiting[1]).close()

    asyncio.run(main())


def test_one_who_gives_up_waiting_loses_no_slot() -> None:
    async def main() -> None:
        pool = SlotPool(1, 1)
        held = await take(pool)
        impatient = asyncio.ensure_future(pool.take())
        await asyncio.sleep(0)
        impatient.cancel()
        patient = asyncio.ensure_future(pool.take())
        await asyncio.sleep(0)
        held.close()
        (await patient).close()
        # Given a slot and cancelled in the same turn of the loop: the slot goes on.
        held = await take(pool)
        unlucky = asyncio.ensure_future(pool.take())
        await asyncio.sleep(0)
        held.close()
        unlucky.cancel()
        await asyncio.sleep(0.01)
        assert (pool.in_use, pool.waiting) == (0, 0)

    asyncio.run(main())


def test_a_lease_that_nobody_holds_any_more_comes_back() -> None:
    async def main() -> None:
        pool = SlotPool(1, 1)
        lease = await take(pool)
        del lease
        gc.collect()
        assert pool.in_use == 0

    asyncio.run(main())


def test_a_lease_of_an_event_loop_that_is_gone_comes_back() -> None:
    pool = SlotPool(1, 1)
    left: list[Lease] = []

    async def leave() -> None:
        left.append(await take(pool))

    asyncio.run(leave())
    assert pool.in_use == 1

    async def main() -> None:
        lease = await asyncio.wait_for(take(pool), 5)
        assert pool.in_use == 1
        left[0].close()  # closing the one that was taken back changes nothing
        assert pool.in_use == 1
        lease.close()
        assert pool.in_use == 0

    asyncio.run(main())


def test_a_closed_pool_turns_everyone_away() -> None:
    async def main() -> None:
        pool = SlotPool(1, 1)
        held = await take(pool)
        waiting = asyncio.ensure_future(pool.take())
        await asyncio.sleep(0)
        pool.close()
        with pytest.raises(CallAborted):
            await waiting
        with pytest.raises(CallAborted):
            pool.take_now()
        held.close()

    asyncio.run(main())


@pytest.mark.parametrize("arguments", [(0, 1), (1, 0)])
def test_a_pool_without_slots_is_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ConfigError):
        SlotPool(*arguments)
