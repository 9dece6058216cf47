import asyncio
import io
import resource
import sys
import time
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reslab.data.pictures import decode
from reslab.errors import UserError
from reslab.serving import decoding
from reslab.serving.decoding import AT_ONCE, READY, Decoders, Shape, UnstartedError, work
from reslab.serving.turns import Busy

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
        results: list[Any] = []
        try:
            for content in contents:
                try:
                    results += await decoders.decode([("it.png", content)], shape=Shape(8, 3))
                except UserError as error:
                    results.append(str(error))
        finally:
            await decoders.close()
        return results

    return asyncio.run(check())


async def decode_one(decoders, content, *, image_size=8, channels=3):
    (pixels,) = await decoders.decode([("it.png", content)], shape=Shape(image_size, channels))
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
    assert text == "it.png cannot be read as a picture (unknown format): replace it or remove it"
    assert "cannot be read as a picture" in cut
    assert "is too large" in huge


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
    assert died == "it.png cannot be decoded: it crashed the decoder; use another file"
    np.testing.assert_array_equal(better, good)
    np.testing.assert_array_equal(best, good)


@pytest.mark.parametrize("loop", LOOPS)
def test_pictures_behind_a_bad_one_are_answered_by_another_process(loop):
    command = (sys.executable, "-c", WORKER)
    contents = [png(), b"die", png(color=(1, 2, 3)), b"hang", png(color=(4, 5, 6)), b"text"]
    good, died, second, hung, third, text = run_together(contents, loop=loop, seconds=2.0, command=command)
    assert str(died) == "it.png cannot be decoded: it crashed the decoder; use another file"
    assert str(hung) == "it.png took longer than 2 seconds to decode: use another file"
    assert "unknown format" in str(text)
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


@pytest.mark.parametrize("command", [(sys.executable, "-c", "raise SystemExit(1)"), ("/no/such/python",)])
def test_a_decoder_that_does_not_start_is_no_pictures_fault(command):
    (error,) = run_together([png()], command=command)
    assert isinstance(error, UnstartedError)


def test_a_system_that_limits_no_memory_decodes_all_the_same(monkeypatch):
    def refuse(*_):
        raise ValueError("current limit exceeds maximum limit")  # macOS

    monkeypatch.setattr(resource, "setrlimit", refuse)
    sink = io.BytesIO()
    work(io.BytesIO(), sink)
    assert sink.getvalue() == READY


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
    assert "it crashed the decoder" in grown
    assert good.shape == (3, 8, 8)


def test_a_picture_that_needs_too_much_memory_is_to_be_shrunk(monkeypatch):
    monkeypatch.setattr(decoding, "LARGE_MEMORY", 16 << 20)
    buffer = io.BytesIO()
    Image.new("RGB", (2500, 2500)).save(buffer, "WEBP", lossless=True, method=0)
    large, small = run([buffer.getvalue(), png()], quick_seconds=20.0)
    assert "If other programs open it, shrink it: decoding may use at most 16 MB" in large
    assert small.shape == (3, 8, 8)


# Takes its time with what has a side of so many pixels or more, and a little with all else.
SLOW = """
import sys, time
from reslab.serving import decoding
sound = decoding.shrink
def shrink(image, **options):
    time.sleep(1.0 if image.width >= 1000 else 0.05)
    return sound(image, **options)
decoding.shrink = shrink
decoding.work(sys.stdin.buffer, sys.stdout.buffer)
"""
LARGE, SMALL = (2000, 1001), (20, 10)


def beside(check, **options):
    """Run a check with two decoders that have started."""

    async def prepare():
        decoders = Decoders(num=2, seconds=20.0, command=(sys.executable, "-c", SLOW), **options)
        try:
            await asyncio.gather(*(decode_one(decoders, png()) for _ in range(12)))
            await check(decoders)
        finally:
            await decoders.close()

    asyncio.run(prepare())


def ask(decoders, *sizes):
    uploads = [("it.png", png(size)) for size in sizes]
    return asyncio.create_task(decoders.decode(uploads, shape=Shape(8, 3)))


@pytest.mark.parametrize("many", [[LARGE] * 4, [SMALL] * 60], ids=["large", "small"])
def test_a_small_picture_waits_for_no_other_request(many):
    async def check(decoders):
        first = ask(decoders, *many)
        await asyncio.sleep(0.3)
        await ask(decoders, SMALL)
        assert not first.done()
        assert len(decoders) > 0
        assert len(await first) == len(many)

    beside(check, quick_seconds=20.0)


def test_what_a_client_that_left_had_asked_for_is_dropped():
    async def check(decoders):
        left = ask(decoders, *[LARGE] * 10, *[SMALL] * 50)
        await asyncio.sleep(0.3)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert len(decoders) == 0
        began = time.monotonic()
        await ask(decoders, LARGE)
        assert time.monotonic() - began < 8

    beside(check, quick_seconds=20.0)


def test_the_first_bad_picture_ends_its_request():
    async def check(decoders):
        uploads = [("no.png", b"no picture"), *[("it.png", png(LARGE))] * 40]
        began = time.monotonic()
        with pytest.raises(UserError, match=r"no\.png cannot be read"):
            await decoders.decode(uploads, shape=Shape(8, 3))
        assert time.monotonic() - began < 8
        assert len(decoders) == 0

    beside(check)


def test_a_picture_that_is_slow_for_its_size_has_another_try_among_the_large_ones():
    async def check(decoders):
        tall = (1000, 10)  # small, and takes a second
        slow = ask(decoders, tall)
        await asyncio.sleep(0.05)
        assert (await ask(decoders, SMALL))[0].shape == (3, 8, 8)
        assert (await slow)[0].shape == (3, 8, 8)
        assert len(await ask(decoders, tall, *[SMALL] * 20)) == 21  # which it does not slow down
        with pytest.raises(UserError, match="or take as long to decode"):
            await ask(decoders, *[tall] * 20)

    beside(check, quick_seconds=0.5)


def test_large_pictures_are_bounded_by_their_headers(monkeypatch):
    async def check(decoders):
        began = time.monotonic()
        monkeypatch.setattr(decoding, "REQUEST_PIXELS", 3 * LARGE[0] * LARGE[1])
        with pytest.raises(
            UserError, match="hold more than 6,006,000 pixels, or take as long to decode: send fewer at once"
        ):
            await ask(decoders, *[LARGE] * 30)
        monkeypatch.setattr(decoding, "WAITING_PIXELS", 2 * LARGE[0] * LARGE[1])
        first = ask(decoders, *[LARGE] * 2)
        second = ask(decoders, LARGE)
        third = ask(decoders, LARGE)
        with pytest.raises(Busy):
            await asyncio.gather(first, second, third)
        await asyncio.gather(first, second, third, return_exceptions=True)
        await ask(decoders, LARGE)  # what was refused is counted no more
        assert time.monotonic() - began < 20
        monkeypatch.setattr(decoding, "WAITING", 5)
        with pytest.raises(Busy):
            await ask(decoders, *[SMALL] * 6)

    beside(check, quick_seconds=20.0)
