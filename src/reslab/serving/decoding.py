"""Uploads to pixels, in processes of their own: a picture that hangs, crashes or fills memory takes only those along.

Such a process, `python -m reslab.serving.decoding`, reads pictures from its input and writes pixels to its output.
Axes: C channels, H rows, W columns.
"""

import asyncio
import io
import os
import struct
import sys
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from reslab.errors import UserError
from reslab.pictures import decode, with_channels

MEMORY = 3 << 30  # bytes of address space beside what the process starts with
QUESTION = struct.Struct("!IIII")  # image size, channels, bytes of the name, bytes of the picture
ANSWER = struct.Struct("!?I")  # whether pixels follow, or a sentence; bytes


class Decoders:
    """Some decoding processes; one that takes longer than `seconds` for a picture is replaced."""

    def __init__(self, *, num: int = 2, seconds: float = 5.0, command: tuple[str, ...] = ()) -> None:
        self._command = command or (sys.executable, "-m", "reslab.serving.decoding")
        self._seconds = seconds
        self._idle: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()
        for _ in range(num):
            self._idle.put_nowait(None)  # started when it is needed

    async def decode(self, content: bytes, *, name: str, image_size: int, channels: int) -> NDArray[np.uint8]:
        """Decode an upload to (C, image_size, image_size).

        Raises: UserError where it is no picture, too large, or takes too long.
        """
        process = await self._idle.get()
        sound = None
        try:
            if process is None:
                process = await self._start()
            label = name.encode(errors="replace")[:200]
            question = QUESTION.pack(image_size, channels, len(label), len(content)) + label + content
            fine, reply = await asyncio.wait_for(_exchange(process, question), self._seconds)
            sound = process
        except TimeoutError:
            raise UserError(f"{name} took longer than {self._seconds:g} seconds to decode: use another file") from None
        except (asyncio.IncompleteReadError, OSError):
            raise UserError(f"{name} cannot be decoded, it stopped the decoder: use another file") from None
        finally:
            # After anything else than an answer, what the process writes next belongs to no picture.
            if process is not None and sound is None:
                _kill(process)
            self._idle.put_nowait(sound)
        if not fine:
            raise UserError(reply.decode())
        return np.frombuffer(reply, np.uint8).reshape(channels, image_size, image_size)

    async def close(self) -> None:
        """End the processes that wait for work."""
        while not self._idle.empty():
            process = self._idle.get_nowait()
            if process is not None:
                _kill(process)
                await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )


async def _exchange(process: asyncio.subprocess.Process, question: bytes) -> tuple[bool, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(question)
    await process.stdin.drain()
    fine, size = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
    return fine, await process.stdout.readexactly(size)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


# ---- inside of the process


def work(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer every picture of `source`, until it ends."""
    _limit_memory()
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
