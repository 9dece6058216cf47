"""Decode uploads in separate processes: a picture that hangs, crashes or fills memory takes down only its decoder.

A decoder, `python -P -m reslab.serving.decoding`, reads pictures from its input and writes pixels to its output. It
reads a picture's header first and returns large pictures undecoded; pictures that turn out to be slow are treated as
large. Only the first decoder takes large ones, one at a time. Requests take turns, so a small picture waits neither
for large ones nor for a long request.
Axes: C channels, H rows, W columns.
"""

import asyncio
import io
import os
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from reslab.data.pictures import (
    MAX_PIXELS,
    UnknownFormatError,
    opening,
    readable_endings,
    shrink,
    with_channels,
)
from reslab.errors import UserError
from reslab.recipe.shapes import Resizing
from reslab.serving.turns import Busy, Turns

Uploaded = tuple[str, bytes]  # a file's name and content

LARGE_PIXELS = 2_000_000  # pictures with more are large
REQUEST_PIXELS = 4 * MAX_PIXELS  # in all large pictures of a request
WAITING_PIXELS = 4 * REQUEST_PIXELS  # in all large pictures that wait: about a minute of work
WAITING = 4096  # pictures; further requests are told to come back
# Bytes of address space on top of what a process starts with, for small pictures and for large ones.
SMALL_MEMORY, LARGE_MEMORY = 64 << 20, 320 << 20
# Most pictures sent to a process together, and most bytes (what a pipe holds); a newcomer waits for no more than that.
MOST_AT_ONCE, AT_ONCE = 4, 64 << 10
READY, READY_SECONDS = b"+", 60.0  # what a process sends once it has started, and how long that may take
RESIZINGS: tuple[Resizing, ...] = get_args(Resizing)
# Most pixels, image size, channels, place in RESIZINGS, white or 0, bytes of the name, bytes of the picture.
QUESTION = struct.Struct("!IIIIIII")
ANSWER = struct.Struct("!BI")  # an outcome; the number of bytes that follow, or of pixels if the picture is too large
NAME_BYTES = 200


class Shape(NamedTuple):
    """A network's input: squares of `image_size` pixels, to which pictures are resized by `resize`.

    Grey values of more than 8 bits run from 0 to `white`.
    """

    image_size: int
    channels: int
    resize: Resizing = "squeeze"
    white: int | None = None


class Outcome(IntEnum):
    """A decoder's answer: pixels, an error message, or that there are more pixels than allowed."""

    PIXELS = 0
    WRONG = 1
    LARGE = 2


class UnstartedError(Exception):
    """No picture can be decoded now, since the decoder does not start."""


class _Request:
    """A request for pictures; counts the pixels of the large ones."""

    pixels = 0


@dataclass(eq=False)
class _Picture:
    """A picture that waits to be decoded; `pixels` is above 0 if it is large or was slow."""

    request: _Request
    name: str
    content: bytes
    shape: Shape
    pixels: int = 0
    answered: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def question(self) -> bytes:
        name = self.name.encode(errors="replace")[:NAME_BYTES]
        most = MAX_PIXELS if self.pixels else LARGE_PIXELS
        image_size, channels, resize, white = self.shape
        resizing = RESIZINGS.index(resize)
        return QUESTION.pack(most, image_size, channels, resizing, white or 0, len(name), len(self.content)) + name

    def fail(self, error: Exception) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)


class Decoders:
    """A pool of decoding processes; one that takes longer than `seconds` for a picture is replaced.

    A small picture that takes longer than `quick_seconds` is retried among the large ones. A few small ones are sent
    together, so that a process need not wait for the next one.
    """

    def __init__(
        self, *, num: int = 2, seconds: float = 5.0, quick_seconds: float = 0.5, command: tuple[str, ...] = ()
    ) -> None:
        self._command = command or (sys.executable, "-P", "-m", "reslab.serving.decoding")
        self._num, self._seconds, self._quick_seconds = num, seconds, quick_seconds
        self._small, self._large = Turns[_Picture](), Turns[_Picture]()
        self._large_pixels = 0  # of pictures in `_large`
        self._arrived = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

    async def decode(self, uploads: Sequence[Uploaded], *, shape: Shape) -> list[NDArray[np.uint8]]:
        """Decode a request's uploads to (C, image_size, image_size) each. Cancelling removes those that wait.

        Raises: UserError if one is not a picture, is too large or takes too long; Busy if too many are waiting.
        """
        if len(self) + len(uploads) > WAITING:
            raise Busy
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._work(takes_large=not place)) for place in range(self._num)]
        request = _Request()
        pictures = [_Picture(request, name, content, shape) for name, content in uploads]
        try:
            await self._put(self._small, request, pictures)
            replies = await asyncio.gather(*(picture.answered for picture in pictures))
        finally:
            self._small.drop(request)
            self._large_pixels -= sum(picture.pixels for picture in self._large.drop(request))
            for picture in pictures:
                picture.answered.cancel()
        return [
            np.frombuffer(reply, np.uint8).reshape(shape.channels, shape.image_size, shape.image_size)
            for reply in replies
        ]

    async def close(self) -> None:
        """End the processes, and wait until they and their pipes are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _put(self, turns: Turns[_Picture], request: _Request, pictures: Sequence[_Picture]) -> None:
        async with self._arrived:
            turns.add(request, (picture for picture in pictures if not picture.answered.done()))
            self._arrived.notify_all()

    async def _put_large(self, picture: _Picture, *, pixels: int) -> None:
        """Queue a picture with the large ones, or fail it if those are too many."""
        picture.pixels = pixels
        picture.request.pixels += pixels
        if picture.request.pixels > REQUEST_PIXELS:
            picture.fail(
                UserError(
                    f"The pictures of this request hold more than {REQUEST_PIXELS:,} pixels, or take as long to "
                    "decode: send fewer at once"
                )
            )
        elif self._large_pixels + pixels > WAITING_PIXELS:
            picture.fail(Busy())
        elif not picture.answered.done():
            self._large_pixels += pixels
            await self._put(self._large, picture.request, [picture])

    async def _work(self, *, takes_large: bool) -> None:
        """Run a process that decodes what waits, until cancelled."""
        process = None
        memory = LARGE_MEMORY if takes_large else SMALL_MEMORY
        try:
            while True:
                pictures = await self._take(takes_large=takes_large)
                try:
                    if process is None or process.returncode is not None:
                        process = await self._start(memory)
                        await _hear_start(process)
                    await self._exchange(process, pictures)
                except Exception as error:  # it goes to the client
                    # The first picture is the cause; whatever the process writes next would match no picture.
                    first = pictures.popleft()
                    for picture in pictures:
                        await self._put(self._small, picture.request, [picture])
                    await self._blame(first, error)
                    if process is not None:
                        await _end(process)
                    process = None
        finally:
            if process is not None:
                await _end(process)

    async def _take(self, *, takes_large: bool) -> deque[_Picture]:
        """Wait for one large picture, or for a batch of small ones."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._small or (takes_large and self._large))
            if takes_large and self._large:
                picture = self._large.take()
                self._large_pixels -= picture.pixels
                return deque([picture])
            taken: deque[_Picture] = deque()
            while self._small and len(taken) < MOST_AT_ONCE and sum(len(each.content) for each in taken) < AT_ONCE:
                taken.append(self._small.take())
            return taken

    async def _blame(self, picture: _Picture, error: Exception) -> None:
        """Report a picture's failure to its client; a small picture that was slow is retried among the large ones."""
        match error:
            case TimeoutError() if not picture.pixels:
                await self._put_large(picture, pixels=MAX_PIXELS)
            case TimeoutError():
                picture.fail(
                    UserError(f"{picture.name} took longer than {self._seconds:g} seconds to decode: use another file")
                )
            case OSError() | EOFError() | RuntimeError():  # which of them depends on the event loop
                picture.fail(UserError(f"{picture.name} cannot be decoded: it crashed the decoder; use another file"))
            case _:
                picture.fail(error)

    async def _start(self, memory: int) -> Process:
        """Start a process. Raises: UnstartedError if the system does not."""
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        try:
            return await asyncio.create_subprocess_exec(
                *self._command, str(memory), stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment
            )
        except OSError:
            raise UnstartedError from None

    async def _exchange(self, process: Process, pictures: deque[_Picture]) -> None:
        """Send pictures, and remove each one when it is answered."""
        assert process.stdin is not None
        process.stdin.writelines(part for picture in pictures for part in (picture.question(), picture.content))
        while pictures:
            seconds = self._seconds if pictures[0].pixels else self._quick_seconds
            outcome, size = ANSWER.unpack(await _hear(process, ANSWER.size, seconds=seconds))
            if outcome == Outcome.LARGE:
                await self._put_large(pictures.popleft(), pixels=size)
                continue
            reply = await _hear(process, size, seconds=seconds)
            picture = pictures.popleft()
            if outcome == Outcome.WRONG:
                # Some decoders report a lack of memory as a broken file.
                hint = f". If other programs open it, shrink it: decoding may use at most {LARGE_MEMORY >> 20} MB"
                picture.fail(UserError(reply.decode() + hint * bool(picture.pixels)))
            elif not picture.answered.done():
                picture.answered.set_result(reply)


async def _hear(process: Process, num: int, *, seconds: float) -> bytes:
    """Read `num` bytes. Raises: IncompleteReadError if the process ends first; TimeoutError."""
    assert process.stdout is not None
    async with asyncio.timeout(seconds):
        return await process.stdout.readexactly(num)


async def _hear_start(process: Process) -> None:
    """Wait until a process can decode. Raises: UnstartedError if it ends before, or takes too long."""
    try:
        await _hear(process, len(READY), seconds=READY_SECONDS)
    except (TimeoutError, OSError, EOFError, RuntimeError):
        raise UnstartedError from None


async def _end(process: Process) -> None:
    """Kill a process, and wait until it and its pipes are gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(ProcessLookupError):
        process.kill()
    process.stdin.close()
    await process.stdout.read()
    await process.wait()


# ---- inside the process


def work(source: BinaryIO, sink: BinaryIO, *, memory: int = LARGE_MEMORY) -> None:
    """Decode every picture from `source`, until it ends."""
    readable_endings()  # loads the decoders, so that their code does not count as a picture's memory
    _limit_memory(memory)
    sink.write(READY)
    sink.flush()
    while head := source.read(QUESTION.size):
        most, image_size, channels, resizing, white, name_size, size = QUESTION.unpack(head)
        name, content = source.read(name_size).decode(errors="replace"), source.read(size)
        shape = Shape(image_size, channels, RESIZINGS[resizing], white or None)
        outcome, size, reply = _answer(name, content, most=most, shape=shape)
        sink.write(ANSWER.pack(outcome, size) + reply)
        sink.flush()


def _answer(name: str, content: bytes, *, most: int, shape: Shape) -> tuple[Outcome, int, bytes]:
    """Decode a picture, or count its pixels if they are more than `most`; return outcome, size and reply."""
    num_pixels = LARGE_PIXELS + 1  # if opening fails: for some formats it takes the memory for all pixels
    try:
        with opening(io.BytesIO(content), name=name) as image:
            num_pixels = image.width * image.height
            if not most < num_pixels <= MAX_PIXELS:
                rgb = shrink(image, image_size=shape.image_size, resize=shape.resize, white=shape.white)
                pixels = with_channels(rgb, shape.channels).tobytes()
                return Outcome.PIXELS, len(pixels), pixels
    except UserError as error:
        if isinstance(error, UnknownFormatError) or not most < num_pixels <= MAX_PIXELS:
            sentence = str(error).encode()
            return Outcome.WRONG, len(sentence), sentence
    return Outcome.LARGE, num_pixels, b""


def _limit_memory(memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _used_addresses() + memory
    with suppress(OSError, ValueError):  # macOS
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _used_addresses() -> int:
    """Count the bytes of address space that this process uses now; 1 GB if the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 1 << 30


if __name__ == "__main__":
    work(sys.stdin.buffer, sys.stdout.buffer, memory=int(sys.argv[1]))
