import asyncio
import io
import sys
import time
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from reslab.errors import UserError
from reslab.pictures import decode
from reslab.serving.decoding import AT_ONCE, Decoders

# What the server runs in, with uvloop where there is one.
LOOPS = [asyncio.new_event_loop]
with suppress(ImportError):
    import uvloop

    LOOPS.append(uvloop.new_event_loop)


def png(size=(20, 10), color=(200, 30, 90)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def run(contents, **options):
    """Decode one picture after another; exceptions stand in place of pixels."""

    async def check():
        decoders = Decoders(num=1, **options)
        results = []
        try:
            for content in contents:
                try:
                    results += await decoders.decode([("it.png", content)], image_size=8, channels=3)
                except UserError as error:
                    results.append(str(error))
        finally:
            await decoders.close()
        return results

    return asyncio.run(check())


async def decode_one(decoders, content, *, image_size=8, channels=3):
    (pixels,) = await decoders.decode([("it.png", content)], image_size=image_size, channels=channels)
    return pixels


def run_together(contents, *, leaving=(), loop=asyncio.new_event_loop, **options):
    """Decode all pictures at once; who is `leaving` does not wait for the answer."""

    async def check():
        decoders = Decoders(num=1, **options)
        tasks = [asyncio.create_task(decode_one(decoders, content)) for content in contents]
        try:
            await asyncio.sleep(0)
            for place in leaving:
                tasks[place].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await decoders.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(check())


def huge_png():
    """A sound head that promises 20,000 by 20,000 pixels."""
    sound = png()
    head = b"IHDR" + (20000).to_bytes(4, "big") * 2 + sound[24:29]
    return sound[:12] + head + zlib.crc32(head).to_bytes(4, "big") + sound[33:]


def test_pixels_are_those_of_the_command_and_a_broken_upload_leaves_the_decoder_sound():
    good = png()
    first, text, cut, huge, last = run([good, b"no picture", good[:40], huge_png(), good])
    np.testing.assert_array_equal(first, decode(io.BytesIO(good), image_size=8))
    np.testing.assert_array_equal(last, first)
    assert text == "it.png cannot be read as a picture (of no known format): replace it or remove it"
    assert "cannot be read as a picture" in cut
    assert "too large a picture" in huge


def test_grey_networks_get_one_channel():
    async def check():
        decoders = Decoders(num=1)
        try:
            return await decode_one(decoders, png(), image_size=4, channels=1)
        finally:
            await decoders.close()

    grey = asyncio.run(check())
    assert grey.shape == (1, 4, 4)
    assert set(grey.ravel()) == {round(0.299 * 200 + 0.587 * 30 + 0.114 * 90)}


# What decodes as the module does, but hangs or dies at certain words.
WORKER = """
import os, sys, time
from reslab.serving import decoding
sound = decoding.opening
def opening(picture, **options):
    content = picture.getvalue()
    if content == b"hang":
        time.sleep(60)
    if content == b"die":
        os._exit(1)
    return sound(picture, **options)
decoding.opening = opening
decoding.work(sys.stdin.buffer, sys.stdout.buffer)
"""

# Answers, and ends soon after.
LEAVING = "(__import__('threading').Timer(0.3, lambda: os._exit(0)).start(), sound(picture, **options))[1]"


def test_a_picture_that_hangs_or_kills_the_decoder_takes_only_itself_along():
    began = time.monotonic()
    command = (sys.executable, "-c", WORKER)
    good, hung, better, died, best = run([png(), b"hang", png(), b"die", png()], seconds=3.0, command=command)
    assert time.monotonic() - began < 30
    assert hung == "it.png took longer than 3 seconds to decode: use another file"
    assert died == "it.png cannot be decoded, it stopped the decoder: use another file"
    np.testing.assert_array_equal(better, good)
    np.testing.assert_array_equal(best, good)


@pytest.mark.parametrize("loop", LOOPS)
def test_pictures_behind_a_bad_one_are_answered_by_another_process(loop):
    command = (sys.executable, "-c", WORKER)
    contents = [png(), b"die", png(color=(1, 2, 3)), b"hang", png(color=(4, 5, 6)), b"text"]
    good, died, second, hung, third, text = run_together(contents, loop=loop, seconds=2.0, command=command)
    assert str(died) == "it.png cannot be decoded, it stopped the decoder: use another file"
    assert str(hung) == "it.png took longer than 2 seconds to decode: use another file"
    assert "of no known format" in str(text)
    for pixels, color in ((good, (200, 30, 90)), (second, (1, 2, 3)), (third, (4, 5, 6))):
        assert tuple(pixels[:, 0, 0]) == color


def test_who_leaves_takes_no_answer_of_another():
    contents = [png(color=(number, 0, 0)) for number in range(40)]
    results = run_together(contents, leaving=range(0, 40, 3))
    for number, result in enumerate(results):
        if number % 3 == 0:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert result[0, 0, 0] == number


def test_large_pictures_and_small_ones_are_answered_side_by_side():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 2 * AT_ONCE
    small, *_, last = run_together([png(), *[buffer.getvalue(), png()] * 5])
    np.testing.assert_array_equal(last, small)


def test_the_time_of_starting_is_no_pictures_fault():
    slow = "import time; time.sleep(2)\n" + WORKER
    (good,) = run([png()], seconds=1.5, command=(sys.executable, "-c", slow))
    assert good.shape == (3, 8, 8)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_decoder_that_ended_while_it_was_idle_is_replaced(loop):
    async def check():
        decoders = Decoders(num=1, command=(sys.executable, "-c", WORKER.replace("sound(picture, **options)", LEAVING)))
        try:
            for _ in range(2):
                pixels = await decode_one(decoders, png())
                await asyncio.sleep(1)
            return pixels
        finally:
            await decoders.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(check()).shape == (3, 8, 8)


def test_a_decoder_cannot_fill_the_memory():
    greedy = WORKER.replace('content == b"hang"', 'content == b"grow"').replace("time.sleep(60)", "bytearray(8 << 30)")
    command = (sys.executable, "-c", greedy)
    grown, good = run([b"grow", png()], command=command)
    assert "it stopped the decoder" in grown
    assert good.shape == (3, 8, 8)
