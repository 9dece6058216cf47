import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from reslab.serving import batching
from reslab.serving.batching import Batcher
from reslab.serving.turns import Busy


@asynccontextmanager
async def answering(compute, *, largest=8, waiting=100, **options):
    sizes = []
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(compute, executor=executor, largest=largest, waiting=waiting, note=sizes.append, **options)
        task = asyncio.create_task(batcher.run())
        try:
            yield batcher, sizes
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def doubled(questions):
    return [2 * question for question in questions]


def test_who_asks_while_others_compute_is_answered_together_and_gets_its_own_answer():
    gate = threading.Event()

    def compute(questions):
        gate.wait(5)
        return doubled(questions)

    async def check():
        async with answering(compute) as (batcher, sizes):
            first = asyncio.create_task(batcher.ask([1]))
            await asyncio.sleep(0.05)
            later = [asyncio.create_task(batcher.ask([number, -number])) for number in range(10)]
            await asyncio.sleep(0.05)
            assert len(batcher) == 20
            gate.set()
            assert await first == [2]
            assert await asyncio.gather(*later) == [[2 * number, -2 * number] for number in range(10)]
            assert sizes == [1, 8, 8, 4]

    asyncio.run(check())


def test_a_failure_reaches_who_asked_and_the_next_batch_is_computed():
    def compute(questions):
        if "bad" in questions:
            raise RuntimeError("no")
        return questions

    async def check():
        async with answering(compute) as (batcher, _):
            with pytest.raises(RuntimeError, match="no"):
                await batcher.ask(["bad"])
            assert await batcher.ask(["good"]) == ["good"]

    asyncio.run(check())


def test_who_has_left_is_not_computed_for():
    gate, seen = threading.Event(), []

    def compute(questions):
        gate.wait(5)
        seen.extend(questions)
        return questions

    async def check():
        async with answering(compute) as (batcher, _):
            tasks = [asyncio.create_task(batcher.ask([0]))]
            await asyncio.sleep(0.05)
            tasks += [asyncio.create_task(batcher.ask([number])) for number in (1, 2, 3)]
            await asyncio.sleep(0)
            tasks[2].cancel()
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert seen == [0, 1, 3]

    asyncio.run(check())


def test_more_than_may_wait_are_sent_away():
    gate = threading.Event()

    def compute(questions):
        gate.wait(5)
        return questions

    async def check():
        async with answering(compute, waiting=3) as (batcher, _):
            first = asyncio.create_task(batcher.ask([0]))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(batcher.ask([1, 2]))
            await asyncio.sleep(0)
            with pytest.raises(Busy):
                await batcher.ask([3, 4])
            gate.set()
            assert await asyncio.gather(first, second) == [[0], [1, 2]]

    asyncio.run(check())


def test_who_asks_for_one_does_not_wait_for_all_of_another():
    gate, seen = threading.Event(), []

    def compute(questions):
        gate.wait(5)
        seen.extend(questions)
        return questions

    async def check():
        async with answering(compute, largest=2) as (batcher, _):
            tasks = [asyncio.create_task(batcher.ask([0]))]
            await asyncio.sleep(0.05)
            tasks += [asyncio.create_task(batcher.ask(asked)) for asked in ([*range(1, 9)], [100])]
            await asyncio.sleep(0.05)
            gate.set()
            assert (await asyncio.gather(*tasks))[2] == [100]
            assert seen[:3] == [0, 1, 100]

    asyncio.run(check())


def test_a_batch_is_as_large_as_its_questions_weigh():
    async def check():
        async with answering(doubled, largest=8, weigh=lambda question: question) as (batcher, sizes):
            assert await batcher.ask([3, 3, 3, 20, 1]) == [6, 6, 6, 40, 2]
            assert sizes == [2, 1, 1, 1]

    asyncio.run(check())


def test_who_leaves_waits_no_more():
    gate = threading.Event()

    def compute(questions):
        gate.wait(5)
        return questions

    async def check():
        async with answering(compute) as (batcher, _):
            first = asyncio.create_task(batcher.ask([0]))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(batcher.ask([1, 2, 3]))
            await asyncio.sleep(0)
            assert len(batcher) == 3
            second.cancel()
            await asyncio.sleep(0.05)
            assert len(batcher) == 0
            gate.set()
            assert await first == [0]

    asyncio.run(check())


@pytest.fixture
def patient(monkeypatch):
    """Waits so long that a busy machine is no excuse, up to the time of the batch before."""
    monkeypatch.setattr(batching, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(batching, "PATIENT_SECONDS", 5.0)


def takes(seconds):
    def compute(questions):
        time.sleep(seconds)
        return doubled(questions)

    return compute


async def after(seconds, batcher, question):
    await asyncio.sleep(seconds)
    return await batcher.ask([question])


def test_a_batch_waits_for_as_many_as_asked_around_the_last_one(patient):
    async def check():
        async with answering(takes(1.0)) as (batcher, sizes):
            await batcher.ask([1, 2, 3])
            answers = await asyncio.gather(*(after(number / 20, batcher, number) for number in range(3)))
            assert answers == [[0], [2], [4]]
            assert sizes == [3, 3]

    asyncio.run(check())


def test_a_batch_waits_for_who_is_about_to_ask(patient):
    async def check():
        async with answering(takes(1.0)) as (batcher, sizes):
            await batcher.ask([1])
            with batcher.expecting(1):
                first = asyncio.create_task(batcher.ask([2]))
                await asyncio.sleep(0.1)
                second = asyncio.create_task(batcher.ask([3]))
                await asyncio.sleep(0)
            assert await asyncio.gather(first, second) == [[4], [6]]
            assert sizes == [1, 2]

    asyncio.run(check())


def test_who_never_asks_is_not_waited_for_longer_than_a_batch_takes(patient):
    async def check():
        async with answering(takes(0.2)) as (batcher, sizes):
            await batcher.ask([1])
            with batcher.expecting(5):
                assert await asyncio.wait_for(batcher.ask([2]), 4.0) == [4]
            assert sizes == [1, 1]

    asyncio.run(check())


def test_who_is_alone_does_not_wait(monkeypatch):
    monkeypatch.setattr(batching, "QUIET_SECONDS", 60.0)

    async def check():
        async with answering(doubled) as (batcher, sizes):
            for number in range(3):
                assert await asyncio.wait_for(batcher.ask([number]), 10.0) == [2 * number]
            assert sizes == [1, 1, 1]

    asyncio.run(check())
