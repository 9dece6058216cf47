"""Dynamic batching: one thread computes, and answers all questions that are waiting together.

A lone question is answered at once. Under load, a batch waits until as many questions are there as around the last
one, and for those that are announced: computing a few more at once costs less than computing again.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from reslab.serving.turns import Busy, Turns

Q = TypeVar("Q")
A = TypeVar("A")

# A batch waits at most as long as the last one took to compute, and stops once no question has come for this long:
# the first if none is announced, the second if some are.
QUIET_SECONDS, PATIENT_SECONDS = 0.002, 0.01


class Batcher(Generic[Q, A]):
    """Passes questions to `compute` in batches; at most `waiting` of them wait.

    The weights of a batch, by `weigh`, add up to at most `largest`, unless the batch is a single question. Callers with
    several questions take turns with the others.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Q]], Sequence[A]],
        *,
        executor: Executor,
        largest: int,
        waiting: int,
        weigh: Callable[[Q], int] = lambda question: 1,
        note: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._compute, self._executor = compute, executor
        self._largest, self._waiting, self._weigh, self._note = largest, waiting, weigh, note
        self._queue = Turns[tuple[Q, asyncio.Future[A]]]()
        self._arrived = asyncio.Event()
        self._coming = self._num_asked = 0
        self._crowd, self._seconds = 0, 0.0  # of the last batch: the questions around it, and how long it took

    def __len__(self) -> int:
        return len(self._queue)

    @contextmanager
    def expecting(self, num: int) -> Iterator[None]:
        """Announce that `num` questions are about to be asked, while the block runs."""
        self._coming += num
        try:
            yield
        finally:
            self._coming -= num

    async def ask(self, questions: Sequence[Q]) -> list[A]:
        """Return the answers to all questions. Raises: Busy if too many are waiting."""
        if len(self._queue) + len(questions) > self._waiting:
            raise Busy
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[A]] = [loop.create_future() for _ in questions]
        request = object()
        self._queue.add(request, zip(questions, futures, strict=True))
        self._num_asked += len(questions)
        self._arrived.set()
        try:
            return await asyncio.gather(*futures)
        finally:  # compute nothing for a client that has left
            self._queue.drop(request)

    async def run(self) -> None:
        """Answer until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._arrived.wait()
            await self._gather()
            batch = self._take()
            if batch:
                began = clock()
                await self._answer(batch)
                self._seconds = clock() - began
                self._crowd = len(batch) + len(self._queue) + self._coming

    async def _gather(self) -> None:
        """Wait for questions that are about to come."""
        clock = asyncio.get_running_loop().time
        end = clock() + self._seconds
        num_asked, came = self._num_asked, clock()
        while len(self._queue) < min(self._largest, max(self._crowd, len(self._queue) + self._coming)):
            await asyncio.sleep(QUIET_SECONDS / 2)
            if self._num_asked > num_asked:
                num_asked, came = self._num_asked, clock()
            patience = PATIENT_SECONDS if self._coming else QUIET_SECONDS
            if clock() > min(end, came + patience):
                return

    def _take(self) -> list[tuple[Q, "asyncio.Future[A]"]]:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        weight = 0
        while self._queue:
            weight += self._weigh(self._queue.peek()[0])
            if batch and weight > self._largest:
                break
            batch.append(self._queue.take())
        if not self._queue:
            self._arrived.clear()
        return batch

    async def _answer(self, batch: list[tuple[Q, "asyncio.Future[A]"]]) -> None:
        self._note(len(batch))
        questions = [question for question, _ in batch]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._executor, self._compute, questions)
        except Exception as error:  # pass it to the callers, and go on with the next batch
            for _, future in batch:
                with suppress(asyncio.InvalidStateError):
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            with suppress(asyncio.InvalidStateError):
                future.set_result(answer)
