"""Uploads to answers: what decodes, batches and computes, as long as the app lives."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from reslab.data import ImageSet
from reslab.runs import Predictions as SavedPredictions
from reslab.serving.batching import Batcher
from reslab.serving.calibration import PENDING, calibrate_by, uncalibrated
from reslab.serving.decoding import Decoders
from reslab.serving.metrics import Metrics
from reslab.serving.neighbours import Nearest
from reslab.serving.network import Asked, Network, Question, Reply
from reslab.serving.own_images import read_own, read_some
from reslab.serving.schema import Answer, Guess, Neighbour, Predicted, Predictions, ServedRun

LARGEST_BATCH = 64
WAITING = 4096  # pictures; more are told to come back

Uploaded = Sequence[tuple[str, bytes]]  # names and bytes of files


class Service:
    """The networks, with what batches and decodes for them."""

    def __init__(
        self,
        networks: Sequence[Network],
        *,
        metrics: Metrics,
        decoders: Decoders | None = None,
        largest_batch: int = LARGEST_BATCH,
    ) -> None:
        self.networks, self.decoders = networks, decoders or Decoders()
        self._executor = ThreadPoolExecutor(1)  # two networks that compute at once would only share the processor
        self._batchers = [
            Batcher(
                network.answer, executor=self._executor, largest=largest_batch, waiting=WAITING, note=metrics.note_batch
            )
            for network in networks
        ]
        metrics.watch_queue(lambda: sum(map(len, self._batchers)))

    @asynccontextmanager
    async def running(
        self, *, neighbours: int = 0, data_dir: Path | None = None, allow_remote: bool = False
    ) -> AsyncIterator[None]:
        """Answer while the block runs; meanwhile calibrate, and index so many training images."""
        tasks = [asyncio.create_task(batcher.run()) for batcher in self._batchers]
        tasks += [
            asyncio.create_task(self._prepare(network, neighbours, data_dir, allow_remote)) for network in self.networks
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.decoders.close()
            self._executor.shutdown()

    async def predict(self, uploads: Uploaded, *, asked: Asked) -> Predictions:
        """Answer for files by every network. Raises: UserError where one is no picture; Busy where too many wait."""
        of_networks = await asyncio.gather(*(self._ask(place, uploads, asked) for place in range(len(self.networks))))
        return Predictions(
            pictures=[
                Predicted(name=name, answers=[answers[place] for answers in of_networks])
                for place, (name, _) in enumerate(uploads)
            ]
        )

    async def _ask(self, place: int, uploads: Uploaded, asked: Asked) -> list[Answer]:
        network, batcher = self.networks[place], self._batchers[place]
        size, channels = network.weights.image_size, network.weights.channels
        with batcher.expecting(len(uploads)):
            pixels = await asyncio.gather(
                *(
                    self.decoders.decode(content, name=name, image_size=size, channels=channels)
                    for name, content in uploads
                )
            )
        replies = await batcher.ask([Question(each, asked) for each in pixels])
        return [_to_answer(network, reply) for reply in replies]

    async def _prepare(self, network: Network, num: int, data_dir: Path | None, allow_remote: bool) -> None:
        """Calibrate the network and index its training images, as far as its run has them."""
        if network.run is None:
            return
        if num > 0:
            network.index_note = "The nearest training images are being prepared."
        if network.calibration is PENDING:
            held = await asyncio.to_thread(
                read_own, network.run, "validation", data_dir=data_dir, allow_remote=allow_remote
            )
            if isinstance(held, str):
                network.calibration = uncalibrated(held)
            else:
                logits, _ = await self._compute(network, held)
                found = SavedPredictions(logits.numpy(), held.labels.numpy())
                network.calibration = calibrate_by(found, num_classes=len(network.weights.classes))
        if num > 0:
            images = await asyncio.to_thread(
                read_some, network.run, num=num, data_dir=data_dir, allow_remote=allow_remote
            )
            if isinstance(images, str):
                network.index_note = f"No nearest training images: {images}"
            else:
                _, features = await self._compute(network, images)
                network.use_images(images, features)

    async def _compute(self, network: Network, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Compute logits and features in parts; pictures that come meanwhile are answered in between."""
        loop = asyncio.get_running_loop()
        parts = [
            await loop.run_in_executor(self._executor, network.compute, part)
            for part in torch.split(images.images[:], LARGEST_BATCH)
        ]
        logits, features = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(features)


def describe(network: Network) -> ServedRun:
    """Say what is served."""
    run, known = network.run, network.weights
    figures = run.evaluation.splits if run is not None and run.is_evaluated else {}
    return ServedRun(
        name=network.name,
        recipe=run.recipe.name if run else None,
        data=run.recipe.data if run else None,
        network=known.model.label,
        classes=known.classes,
        image_size=known.image_size,
        channels=known.channels,
        test_accuracy=figures["test"].accuracy if "test" in figures else None,
        is_calibrated=network.calibration.is_fitted,
        temperature=network.calibration.temperature,
        calibration=network.calibration.note,
        has_neighbours=network.index is not None,
        neighbours=network.index_note,
    )


def _to_answer(network: Network, reply: Reply) -> Answer:
    names = network.weights.classes
    evidence = reply.evidence or repeat(None, len(reply.classes))
    return Answer(
        run=network.name,
        classes=[
            Guess(name=names[label], probability=probability, evidence=spread)
            for label, probability, spread in zip(reply.classes, reply.probabilities, evidence, strict=True)
        ],
        nearest=[_to_neighbour(each, names) for each in reply.nearest],
    )


def _to_neighbour(found: Nearest, names: Sequence[str]) -> Neighbour:
    return Neighbour(name=names[found.label], similarity=found.similarity, image=_to_data_url(found.image))


def _to_data_url(image: Tensor) -> str:
    """Write an image (C, H, W) uint8 as a PNG inside a URL."""
    pixels = image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
