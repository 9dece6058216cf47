"""How much faster large JPEGs are read at a smaller scale of their own (Pillow's `draft`) than whole.

    python benchmarks/decode.py

Pictures of 12 megapixels, made on the spot, are decoded to squares one after another on one thread, both ways in turn.
Differences are means over pixels, of 255; times are those of the processor. The network that comes with reslab, of 32
pixels, says what they mean, on parts of scikit-learn's two photographs that are large enough to be read at a smaller
scale.
"""

import io
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin
from record import write_record
from sklearn.datasets import load_sample_images

import reslab
from reslab.data.pictures import SPARE, decode
from reslab.network.network import Network

NUM, WIDTH, HEIGHT = 6, 4000, 3000
NUM_PARTS, SMALLEST, LARGEST = 200, 256, 427  # pixels a side
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


def cut_photographs() -> list[bytes]:
    """Cut squares out of photographs, each saved as a JPEG."""
    generator = np.random.default_rng(0)
    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    parts = []
    for number in range(NUM_PARTS):
        photograph, side = photographs[number % 2], int(generator.integers(SMALLEST, LARGEST))
        left, top = (int(generator.integers(0, length - side + 1)) for length in photograph.size)
        buffer = io.BytesIO()
        photograph.crop((left, top, left + side, top + side)).save(buffer, "JPEG", quality=90)
        parts.append(buffer.getvalue())
    return parts


def read(content: bytes, *, side: int, whole: bool) -> NDArray[np.uint8]:
    if not whole:
        return decode(io.BytesIO(content), image_size=side, name="it")
    with patch.object(JpegImagePlugin.JpegImageFile, "draft", lambda *_: None):
        return decode(io.BytesIO(content), image_size=side, name="it")


def compare_answers(pictures: list[bytes]) -> dict[str, float]:
    network = Network.load(Path(reslab.__file__).parent / "runs" / "demo", device="cpu")
    both = []
    for whole in (False, True):
        images = np.stack([read(content, side=network.image_size, whole=whole) for content in pictures])
        both.append(network.logits(torch.from_numpy(images)).softmax(1).numpy())
    largest = np.abs(both[0] - both[1]).max(1)
    return {
        "pictures": len(pictures),
        "largest_difference": float(largest.max()),
        "median_difference": float(np.median(largest)),
        "other_class": int((both[0].argmax(1) != both[1].argmax(1)).sum()),
    }


def measure(pictures: list[bytes], side: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {"draft": [], "whole": []}
    differences = []
    for content in pictures:
        found = {}
        for how in seconds:
            start = time.process_time()
            found[how] = read(content, side=side, whole=how == "whole").astype(float)
            seconds[how].append(time.process_time() - start)
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
    facts = {"pixels": WIDTH * HEIGHT, "pictures": NUM, "least_scale": SPARE}
    sides = {f"side_{side}": measure(pictures, side) for side in SIDES}
    write_record(Path(__file__).with_suffix(".json"), facts | sides | {"answers": compare_answers(cut_photographs())})


if __name__ == "__main__":
    main()
