"""Questions that wait at the same time are answered together: one thread computes, and takes all that have come.

While nobody else waits, a question is answered at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

# After a batch, its clients need a moment to ask again; then the next batch is not one of a single question.
REST_SECONDS = 0.002


class Busy(Exception):  # noqa: N818 - it names a state
    """So many questions wait already that this one would wait too long."""


class Batcher(Generic[Q, A]):
    """Hands questions to `compute` in batches of at most `largest`; at most `waiting` of them wait."""

    def __init__(
        self,
        compute: Callable[[Sequence[Q]], Sequence[A]],
        *,
        executor: Executor,
        largest: int,
        waiting: int,
        note: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._compute, self._executor = compute, executor
        self._largest, self._waiting, self._note = largest, waiting, note
        self._queue: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    async def ask(self, questions: Sequence[Q]) -> list[A]:
        """Wait for the answers to all questions. Raises: Busy where too many wait."""
        if len(self._queue) + len(questions) > self._waiting:
            raise Busy
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[A]] = [loop.create_future() for _ in questions]
        self._queue.extend(zip(questions, futures, strict=True))
        self._arrived.set()
        return await asyncio.gather(*futures)

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._arrived.wait()
            batch = self._take()
            if batch:
                await self._answer(batch)
            if len(batch) > 1 and self._largest > 1:
                await asyncio.sleep(REST_SECONDS)

    def _take(self) -> list[tuple[Q, "asyncio.Future[A]"]]:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        while self._queue and len(batch) < self._largest:
            question, future = self._queue.popleft()
            if not future.done():  # whoever asked is still there
                batch.append((question, future))
        if not self._queue:
            self._arrived.clear()
        return batch

    async def _answer(self, batch: list[tuple[Q, "asyncio.Future[A]"]]) -> None:
        self._note(len(batch))
        questions = [question for question, _ in batch]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._executor, self._compute, questions)
        except Exception as error:  # whatever it is, those who asked are told, and the next batch has its chance
            for _, future in batch:
                with suppress(asyncio.InvalidStateError):
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            with suppress(asyncio.InvalidStateError):
                future.set_result(answer)
