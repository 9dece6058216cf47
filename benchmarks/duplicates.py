"""How many planted copies the search for near duplicates finds, how often it is wrong, and how long it takes.

    RESLAB_DATA=CIFAR python benchmarks/duplicates.py --anchors cifar10_near_duplicates.csv

Copies of 1,000 of CIFAR-10's training images are planted among the others and looked for. The anchors are pairs of
test and training images that people judged (test_index, train_index, judgment: 1 the same shot, 2 very similar; Barz &
Denzler 2020, repository cvjena/cifair): what is found beyond them is `not_published`, an upper bound for false alarms.
Those were also judged by eye, one by one, in benchmarks/duplicates_judged.csv, where 0 is no copy; what is not in there
counts as none. Seconds are those of one core.
"""

import argparse
import csv
import io
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from record import write_record

from reslab.data.check.duplicates import Overlap, find_overlap, find_repeats
from reslab.data.images import ImageSet
from reslab.data.load import load

SEED = 0
NUM = 1000  # planted copies of each kind
HERE = Path(__file__).parent
PUBLISHED = {"cifar10": 0.0325, "cifar100": 0.10}  # of the test images: Barz & Denzler 2020, arXiv:1902.00423

Alter = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Cut 0 to 20 % of both sides off, at any place."""
    return _crop(picture, generator, side=generator.uniform(0.8, 1) * 32)


def crop_most(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    return _crop(picture, generator, side=0.8 * 32)


def _crop(picture: Image.Image, generator: np.random.Generator, *, side: float) -> Image.Image:
    left, top = generator.uniform(0, 32 - side, size=2)
    return picture.resize((32, 32), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def compress(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=50)
    return Image.open(buffer)


def halve(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture.resize((16, 16), Image.Resampling.BILINEAR).resize((32, 32), Image.Resampling.BILINEAR)


def mirror(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


ALTERED: dict[str, Alter] = {
    "mirrored": mirror,
    "cropped by up to 20 %": crop,
    "cropped by 20 %": crop_most,
    "JPEG quality 50": compress,
    "brightness +20 %": lambda picture, _: ImageEnhance.Brightness(picture).enhance(1.2),
    "brightness -20 %": lambda picture, _: ImageEnhance.Brightness(picture).enhance(0.8),
    "resized by half": halve,
    "cropped, mirrored, JPEG": lambda picture, generator: compress(
        mirror(crop(picture, generator), generator), generator
    ),
}


def plant(images: NDArray[np.uint8], alter: Alter) -> torch.Tensor:
    generator = np.random.default_rng(SEED)
    copies = [np.asarray(alter(Image.fromarray(image), generator)) for image in images.transpose(0, 2, 3, 1)]
    return torch.from_numpy(np.stack(copies).transpose(0, 3, 1, 2).copy())


def measure_planted(train: ImageSet) -> dict[str, float]:
    """Give the share of the copies of each kind whose original is found among all training images."""
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(train.labels))[:NUM])
    originals = train.subset(chosen)
    found = {}
    for name, alter in ALTERED.items():
        copies = ImageSet(plant(originals.images[:].numpy(), alter), originals.labels, train.classes, name, "test")
        overlap = find_overlap(train, copies)
        pairs = set(overlap.near) | set(overlap.exact)
        found[name] = sum((int(place), number) in pairs for number, place in enumerate(chosen)) / NUM
        print(name, found[name], flush=True)
    return found


def read_pairs(path: Path) -> dict[tuple[int, int], int]:
    """Read judged pairs, (training, test) to judgment."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {(int(row["train_index"]), int(row["test_index"])): int(row["judgment"]) for row in rows}


def tests_of(pairs: Iterable[tuple[int, int]]) -> set[int]:
    return {test for _, test in pairs}


def compare(overlap: Overlap, *, num_test: int, anchors: Path) -> dict[str, float]:
    """Compare what is found with the published pairs, and with the judgments of what is found beyond them."""
    judged = read_pairs(anchors)
    copies = {pair for pair, judgment in read_pairs(HERE / "duplicates_judged.csv").items() if judgment}
    pairs = set(overlap.near) | set(overlap.exact)
    found, published = tests_of(pairs), tests_of(judged)
    wrong = found - published - tests_of(pairs & copies)
    same_shot = tests_of(pair for pair, judgment in judged.items() if judgment == 1)
    return {
        "test_images_found": len(found),
        "published_found": len(found & published) / len(published),
        "published_same_shot_found": len(found & same_shot) / len(same_shot),
        "not_published": len(found - published),
        "no_copies": len(wrong),
        "precision": 1 - len(wrong) / len(found),
        "false_alarms": len(wrong) / (num_test - len(published)),
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--anchors", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE / "duplicates.json")
    arguments = parser.parse_args()
    result: dict[str, object] = {"seed": SEED, "planted": NUM}
    for name in PUBLISHED:
        train, test = load(name, "train"), load(name, "test")
        began = time.process_time()
        overlap = find_overlap(train, test)
        seconds = time.process_time() - began
        began = time.process_time()
        repeats = find_repeats(train)
        result[name] = {
            "seconds_train_test": round(seconds, 1),
            "seconds_within_train": round(time.process_time() - began, 1),
            "share_of_test_images": len(tests_of(overlap.near) | tests_of(overlap.exact)) / len(test.labels),
            "published_share": PUBLISHED[name],
            "pairs": len(overlap.near) + len(overlap.exact),
            "pairs_of_two_classes": sum(
                int(train.labels[i] != test.labels[j]) for i, j in (*overlap.near, *overlap.exact)
            ),
            "train_images_repeated": len({place for pair in (*repeats.near, *repeats.exact) for place in pair}),
        }
        if name == "cifar10":
            result["anchors"] = compare(overlap, num_test=len(test.labels), anchors=arguments.anchors)
            result["planted_found"] = measure_planted(train)
    write_record(arguments.out, result)


if __name__ == "__main__":
    main()
