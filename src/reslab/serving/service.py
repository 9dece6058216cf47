"""From uploads to answers: decoding, batching and computing while the app runs."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.data.pictures import is_answered
from reslab.errors import UserError
from reslab.records import Calibration
from reslab.serving.batching import Batcher
from reslab.serving.decoding import WAITING, Decoders, Shape, Uploaded
from reslab.serving.metrics import Metrics
from reslab.serving.own_images import read_some
from reslab.serving.schema import Guess, Predicted, PredictResponse, RunAnswer, ServedRun
from reslab.serving.served import Asked, Question, Reply, Served

T = TypeVar("T")

LARGEST_BATCH = 64


class Service:
    """The networks, with their batchers and decoders."""

    def __init__(
        self,
        served: Sequence[Served],
        *,
        metrics: Metrics,
        decoders: Decoders | None = None,
        largest_batch: int = LARGEST_BATCH,
    ) -> None:
        self._note_answer = metrics.note_answer
        for each in served:
            metrics.expect(each.name, each.network.classes)
        self.served, self.decoders = served, Decoders() if decoders is None else decoders
        self._executor = ThreadPoolExecutor(1)  # two networks at once would only share the processor
        self._batchers = [
            Batcher(
                each.answer,
                executor=self._executor,
                largest=largest_batch,
                waiting=WAITING,
                weigh=lambda question: question.asked.weight,
                note=metrics.note_batch,
            )
            for each in served
        ]
        metrics.watch_queue(lambda: len(self.decoders) + sum(map(len, self._batchers)))

    @asynccontextmanager
    async def running(
        self, *, neighbours: int = 0, data_dir: Path | None = None, allow_remote: bool = False
    ) -> AsyncIterator[None]:
        """Answer while the block runs; meanwhile index this many training images."""
        tasks = [asyncio.create_task(batcher.run()) for batcher in self._batchers]
        tasks += [asyncio.create_task(self._prepare(each, neighbours, data_dir, allow_remote)) for each in self.served]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.decoders.close()
            self._executor.shutdown()

    async def predict(self, uploads: Sequence[Uploaded], *, asked: Asked) -> PredictResponse:
        """Classify files by every network.

        Raises: UserError if one is not a picture or a network cannot promise the coverage; Busy if too many wait.
        """
        for each in self.served:
            each.find_threshold(asked)
        networks = [each.network for each in self.served]
        shapes = [Shape(each.image_size, each.channels, each.resize, each.white) for each in networks]
        with ExitStack() as stack:
            for batcher in self._batchers:
                stack.enter_context(batcher.expecting(len(uploads)))
            pixels = {shape: await self.decoders.decode(uploads, shape=shape) for shape in dict.fromkeys(shapes)}
        replies = await asyncio.gather(
            *(
                batcher.ask([Question(each, asked) for each in pixels[shape]])
                for batcher, shape in zip(self._batchers, shapes, strict=True)
            )
        )
        response = PredictResponse(
            pictures=[
                Predicted(name=name, answers=list(map(_to_answer, self.served, of_picture)))
                for (name, _), *of_picture in zip(uploads, *replies, strict=True)
            ]
        )
        for picture in response.pictures:
            for answer in picture.answers:
                self._note_answer(answer)
        return response

    async def _prepare(self, served: Served, num: int, data_dir: Path | None, allow_remote: bool) -> None:
        """Index the network's training images, if its run has them."""
        if served.run is None or num == 0:
            return
        served.index_note = "The nearest training images are being prepared."
        read = partial(read_some, served.run, num=num, data_dir=data_dir, allow_remote=allow_remote)
        try:
            images = await _in_daemon(read)
            if isinstance(images, str):
                served.index_note = f"No nearest training images: {images}"
            else:
                served.use_images(images, await self._compute_features(served, images))
        except Exception as error:  # pictures are answered without them
            served.index_note = f"No nearest training images: preparing them failed ({str(error) or repr(error)})."

    async def _compute_features(self, served: Served, images: ImageSet) -> Tensor:
        """Compute features in parts, so that incoming pictures are answered in between."""
        loop = asyncio.get_running_loop()
        parts = [
            await loop.run_in_executor(self._executor, served.compute, part)
            for part in torch.split(images.images[:], LARGEST_BATCH)
        ]
        return torch.cat([features for _, features, _ in parts])


async def _in_daemon(work: Callable[[], T]) -> T:
    """Do `work` in a thread that the process does not wait for when it ends, as it would for `asyncio.to_thread`."""
    done: Future[T] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(done)


def describe(served: Served) -> ServedRun:
    """Describe a served run by its files as they are now, without what cannot be read."""
    run, known = served.run, served.network.metadata
    recipe = None if run is None else _readable(lambda: run.recipe)
    evaluation = None if run is None else _readable(lambda: run.evaluation)
    test = evaluation.splits.get("test") if evaluation else None
    return ServedRun(
        name=served.name,
        recipe=recipe.name if recipe else None,
        data=recipe.data if recipe else None,
        network=known.model.label,
        classes=known.classes,
        image_size=known.image_size,
        channels=known.channels,
        resize=known.resize,
        test_accuracy=test.accuracy if test else None,
        temperature=known.calibration.temperature if known.calibration else None,
        calibration=describe_calibration(known.calibration),
        **describe_neighbours(served),
    )


def describe_neighbours(served: Served) -> dict[str, Any]:
    """Return the fields of a served run's description that change while it is served."""
    return {"has_neighbours": served.index is not None, "neighbours": served.index_note}


def _readable(read: Callable[[], T]) -> T | None:
    """Read from a run; None if the file is absent, damaged or newer than this reslab."""
    with suppress(UserError):
        return read()
    return None


def describe_calibration(found: Calibration | None) -> str:
    if found is None:
        return "Not calibrated: too few images were held out that the network had not learned from."
    return f"{found.words[0].upper()}{found.words[1:]}."


def _to_answer(served: Served, reply: Reply) -> RunAnswer:
    names = served.network.classes
    evidence = reply.evidence or repeat(None, len(reply.classes))
    answered = is_answered(reply.familiarity)
    return RunAnswer(
        run=served.name,
        classes=[
            Guess(name=names[label], probability=probability, evidence=spread)
            for label, probability, spread in zip(reply.classes, reply.probabilities, evidence, strict=True)
        ],
        nearest=reply.nearest,
        familiarity=reply.familiarity,
        answered=answered,
        class_set=[names[label] for label in reply.class_set] if answered and reply.class_set is not None else None,
    )
