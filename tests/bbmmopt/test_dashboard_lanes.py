"""Facts about the threads in which the dashboard computes."""

import asyncio
import threading

import pytest

from bbmmopt.dashboard.lanes import Closed, Lane, Superseded, in_thread


class Gate:
    """A job that says when it has begun, and ends when it is let."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.open.wait(20)
        return "done"


async def until(gate: Gate) -> None:
    """Until it has begun."""
    assert await asyncio.to_thread(gate.begun.wait, 20)


def test_jobs_are_done_one_after_the_other_in_order():
    done: list[int] = []
    lane = Lane("test")

    async def main() -> list[int]:
        return await asyncio.gather(*(lane.run(lambda k=k: done.append(k) or k) for k in range(20)))

    assert asyncio.run(main()) == list(range(20)) == done
    lane.close()


def test_a_job_that_is_superseded_before_it_begins_is_never_done():
    done: list[str] = []
    lane, gate = Lane("test"), Gate()

    async def main() -> tuple[object, ...]:
        first = asyncio.create_task(lane.run(gate, "slice"))
        await until(gate)  # what has begun goes on
        others = [
            asyncio.create_task(lane.run(lambda name=name: done.append(name) or name, slot))
            for name, slot in [("a", "slice"), ("b", "other"), ("c", "slice"), ("d", None)]
        ]
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    first, a, *rest = asyncio.run(main())
    assert first == "done"
    assert isinstance(a, Superseded)
    assert rest == done == ["b", "c", "d"]
    lane.close()


def test_an_error_goes_to_who_asked_and_the_next_job_is_done():
    lane = Lane("test")

    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await lane.run(lambda: 1 // 0)
        return await lane.run(lambda: 7)

    assert asyncio.run(main()) == 7
    lane.close()


def test_closing_tells_all_who_wait_at_once():
    lane, gate = Lane("test"), Gate()

    async def main() -> list[object]:
        running = asyncio.create_task(lane.run(gate))
        await until(gate)
        waiting = asyncio.create_task(lane.run(lambda: 1))
        await asyncio.sleep(0)
        assert lane.busy
        lane.close()
        found = await asyncio.gather(running, waiting, return_exceptions=True)
        with pytest.raises(Closed):
            await lane.run(lambda: 2)
        return found

    assert [type(error) for error in asyncio.run(main())] == [Closed, Closed]
    gate.open.set()


def test_the_event_loop_goes_on_while_a_job_is_done():
    lane, gate = Lane("test"), Gate()

    async def main() -> str:
        running = asyncio.create_task(lane.run(gate))
        await until(gate)
        assert await in_thread(lambda: "at once") == "at once"
        gate.open.set()
        return await running

    assert asyncio.run(main()) == "done"
    lane.close()
