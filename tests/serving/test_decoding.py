import asyncio
import io
import sys
import time
import zlib

import numpy as np
from PIL import Image

from reslab.errors import UserError
from reslab.pictures import decode
from reslab.serving.decoding import Decoders


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
                    results.append(await decoders.decode(content, name="it.png", image_size=8, channels=3))
                except UserError as error:
                    results.append(str(error))
        finally:
            await decoders.close()
        return results

    return asyncio.run(check())


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
            return await decoders.decode(png(), name="it.png", image_size=4, channels=1)
        finally:
            await decoders.close()

    grey = asyncio.run(check())
    assert grey.shape == (1, 4, 4)
    assert set(grey.ravel()) == {round(0.299 * 200 + 0.587 * 30 + 0.114 * 90)}


# What decodes as `decode` does, but hangs or dies at certain words.
WORKER = """
import os, sys, time
from reslab.serving import decoding
sound = decoding.decode
def decode(picture, **options):
    content = picture.getvalue()
    if content == b"hang":
        time.sleep(60)
    if content == b"die":
        os._exit(1)
    return sound(picture, **options)
decoding.decode = decode
decoding.work(sys.stdin.buffer, sys.stdout.buffer)
"""


def test_a_picture_that_hangs_or_kills_the_decoder_takes_only_itself_along():
    began = time.monotonic()
    command = (sys.executable, "-c", WORKER)
    good, hung, better, died, best = run([png(), b"hang", png(), b"die", png()], seconds=3.0, command=command)
    assert time.monotonic() - began < 30
    assert hung == "it.png took longer than 3 seconds to decode: use another file"
    assert died == "it.png cannot be decoded, it stopped the decoder: use another file"
    np.testing.assert_array_equal(better, good)
    np.testing.assert_array_equal(best, good)


def test_a_decoder_cannot_fill_the_memory():
    greedy = WORKER.replace('content == b"hang"', 'content == b"grow"').replace("time.sleep(60)", "bytearray(8 << 30)")
    command = (sys.executable, "-c", greedy)
    grown, good = run([b"grow", png()], command=command)
    assert "it stopped the decoder" in grown
    assert good.shape == (3, 8, 8)
