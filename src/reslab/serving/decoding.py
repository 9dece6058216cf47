"""Uploads to pixels, in processes of their own: a picture that hangs, crashes or fills memory takes only those along.

Such a process, `python -P -m reslab.serving.decoding`, reads pictures from its input and writes pixels to its output;
-P keeps it from importing what lies in the working directory.
Axes: C channels, H rows, W columns.
"""

import asyncio
import io
import os
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from contextlib import suppress
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from reslab.errors import UserError
from reslab.pictures import decode, with_channels

MEMORY = 3 << 30  # bytes of address space beside what the process starts with
AT_ONCE = 64 << 10  # bytes of pictures that a process is sent together: what a pipe holds
READY, READY_SECONDS = b"+", 60.0  # what a process says when it has started, and how long that may take
QUESTION = struct.Struct("!IIII")  # image size, channels, bytes of the name, bytes of the picture
ANSWER = struct.Struct("!?I")  # whether pixels follow, or a sentence; bytes

Answered = asyncio.Future[tuple[bool, bytes]]  # whether it is pixels, or a sentence


class Decoders:
    """Some decoding processes; one that takes longer than `seconds` for a picture is replaced.

    Small pictures that wait are sent together, so that no process waits for the next one meanwhile.
    """

    def __init__(self, *, num: int = 2, seconds: float = 5.0, command: tuple[str, ...] = ()) -> None:
        self._command = command or (sys.executable, "-P", "-m", "reslab.serving.decoding")
        self._num, self._seconds = num, seconds
        self._waiting: asyncio.Queue[tuple[bytes, Answered]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    async def decode(self, content: bytes, *, name: str, image_size: int, channels: int) -> NDArray[np.uint8]:
        """Decode an upload to (C, image_size, image_size).

        Raises: UserError where it is no picture, too large, or takes too long.
        """
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._work()) for _ in range(self._num)]
        label = name.encode(errors="replace")[:200]
        question = QUESTION.pack(image_size, channels, len(label), len(content)) + label + content
        answered: Answered = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((question, answered))
        try:
            fine, reply = await answered
        except TimeoutError:
            raise UserError(f"{name} took longer than {self._seconds:g} seconds to decode: use another file") from None
        except (OSError, EOFError, RuntimeError):  # which one, depends on the loop
            raise UserError(f"{name} cannot be decoded, it stopped the decoder: use another file") from None
        if not fine:
            raise UserError(reply.decode())
        return np.frombuffer(reply, np.uint8).reshape(channels, image_size, image_size)

    async def close(self) -> None:
        """End the processes, and wait until they and their pipes are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _work(self) -> None:
        """Let a process decode what waits, until cancelled."""
        process = None
        try:
            while True:
                pictures = await self._take()
                try:
                    if process is None or process.returncode is not None:
                        process = await self._start()
                        await _hear(process, len(READY), seconds=READY_SECONDS)
                    await self._exchange(process, pictures)
                except Exception as error:  # it goes to who asked
                    # The first picture is the cause; what the process writes next would belong to none.
                    _, answered = pictures.popleft()
                    if not answered.done():
                        answered.set_exception(error)
                    for picture in pictures:
                        self._waiting.put_nowait(picture)
                    if process is not None:
                        await _end(process)
                    process = None
        finally:
            if process is not None:
                await _end(process)

    async def _take(self) -> deque[tuple[bytes, Answered]]:
        """Wait for pictures, and take as many as are sent together; those that nobody waits for are dropped."""
        taken: deque[tuple[bytes, Answered]] = deque()
        size = 0
        while not taken or (size < AT_ONCE and not self._waiting.empty()):
            question, answered = await self._waiting.get()
            if not answered.done():
                taken.append((question, answered))
                size += len(question)
        return taken

    async def _start(self) -> Process:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        return await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment
        )

    async def _exchange(self, process: Process, pictures: deque[tuple[bytes, Answered]]) -> None:
        """Send pictures, and remove each one when it is answered."""
        assert process.stdin is not None
        process.stdin.writelines(question for question, _ in pictures)
        while pictures:
            fine, size = ANSWER.unpack(await _hear(process, ANSWER.size, seconds=self._seconds))
            reply = await _hear(process, size, seconds=self._seconds)
            _, answered = pictures.popleft()
            if not answered.done():
                answered.set_result((fine, reply))


async def _hear(process: Process, num: int, *, seconds: float) -> bytes:
    """Read so many bytes. Raises: IncompleteReadError where the process ends before, TimeoutError."""
    assert process.stdout is not None
    async with asyncio.timeout(seconds):
        return await process.stdout.readexactly(num)


async def _end(process: Process) -> None:
    """Kill it, and wait until it and its pipes are gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(ProcessLookupError):
        process.kill()
    process.stdin.close()
    await process.stdout.read()
    await process.wait()


# ---- inside of the process


def work(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer every picture of `source`, until it ends."""
    _limit_memory()
    sink.write(READY)
    sink.flush()
    while head := source.read(QUESTION.size):
        image_size, channels, label_size, size = QUESTION.unpack(head)
        name, content = source.read(label_size).decode(errors="replace"), source.read(size)
        try:
            pixels = decode(io.BytesIO(content), name=name, image_size=image_size)
            fine, reply = True, with_channels(pixels, channels).tobytes()
        except UserError as error:
            fine, reply = False, str(error).encode()
        sink.write(ANSWER.pack(fine, len(reply)) + reply)
        sink.flush()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    work(sys.stdin.buffer, sys.stdout.buffer)
