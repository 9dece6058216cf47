"""How much faster large JPEGs are read at a smaller scale of their own (Pillow's `draft`) than whole.

    python benchmarks/decode.py

Pictures of 12 megapixels, made on the spot, are decoded to squares one after another on one thread, both ways in turn.
Differences are means over pixels, of 255.
"""

import io
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image, JpegImagePlugin
from record import write_record

from reslab.data.pictures import decode

NUM, WIDTH, HEIGHT = 12, 4000, 3000
SIDES = (32, 64, 224)


def make_picture(number: int) -> bytes:
    """Draw shapes of every size and some noise, as a camera would save them."""
    generator = np.random.default_rng(number)
    picture = np.zeros((HEIGHT, WIDTH, 3))
    for side in (3, 12, 50, 200):
        coarse = Image.fromarray(generator.integers(0, 256, (side * 3, side * 4, 3), dtype=np.uint8))
        picture += np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) / 4
    picture += generator.normal(0, 3, picture.shape)
    buffer = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def measure(pictures: list[bytes], side: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {"draft": [], "whole": []}
    differences = []
    for content in pictures:
        found = {}
        for how in seconds:
            start = time.perf_counter()
            if how == "draft":
                found[how] = decode(io.BytesIO(content), image_size=side, name="it").astype(float)
            else:
                with patch.object(JpegImagePlugin.JpegImageFile, "draft", lambda *_: None):
                    found[how] = decode(io.BytesIO(content), image_size=side, name="it").astype(float)
            seconds[how].append(time.perf_counter() - start)
        differences.append(np.abs(found["draft"] - found["whole"]).mean())
    draft, whole = (float(np.median(each)) for each in seconds.values())
    return {
        "pictures_per_second": 1 / draft,
        "whole_per_second": 1 / whole,
        "ratio": whole / draft,
        "mean_difference": float(np.mean(differences)),
    }


def main() -> None:
    pictures = [make_picture(number) for number in range(NUM)]
    result = {"pixels": WIDTH * HEIGHT, "pictures": NUM} | {f"side_{side}": measure(pictures, side) for side in SIDES}
    write_record(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()
