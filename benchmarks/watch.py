"""How often `watch` notices corrupted pictures, and how often it takes pictures like the held-out ones for changed.

The corruptions are those of CIFAR-10-C at level 2 (Hendrycks and Dietterich 2019, arXiv:1903.12261), made of the run's
first 2,000 validation images. In each trial 800 of these are the reference and 200 others the new pictures. Writes
watch.json.

    python watch.py RUN --data-dir DIR
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from record import write_record
from scipy.ndimage import gaussian_filter

from reslab import Network, Run
from reslab.data.recipe_data import read_split
from reslab.evaluation.watching import ALARM_AT, Seen, compare, look_at
from reslab.machine import kernels

NUM_IMAGES, NUM_CORRUPTED, NUM_REFERENCE, NUM_NEW = 2000, 600, 800, 200
POWER_TRIALS, FALSE_TRIALS = 20, 200

Picture = NDArray[np.uint8]  # (H, W, C)


def _to_bytes(values: NDArray[np.float64]) -> Picture:
    return (values.clip(0, 1) * 255).astype(np.uint8)


def brighten(picture: Picture) -> Picture:
    values = np.asarray(Image.fromarray(picture).convert("HSV")).astype(np.float64)
    values[..., 2] = (values[..., 2] + 0.1 * 255).clip(0, 255)
    return np.asarray(Image.fromarray(values.astype(np.uint8), "HSV").convert("RGB"))


def compress(picture: Picture) -> Picture:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=65)
    return np.asarray(Image.open(file))


def pixelate(picture: Picture) -> Picture:
    size = picture.shape[0]
    small = Image.fromarray(picture).resize((int(0.9 * size), int(0.9 * size)), Image.Resampling.BOX)
    return np.asarray(small.resize((size, size), Image.Resampling.BOX))


def make_corruptions(generator: np.random.Generator) -> dict[str, Callable[[Picture], Picture]]:
    def lose_contrast(picture: Picture) -> Picture:
        values = picture / 255
        mean = values.mean((0, 1))
        return _to_bytes((values - mean) * 0.5 + mean)

    return {
        "Gaussian noise": lambda picture: _to_bytes(picture / 255 + generator.normal(scale=0.06, size=picture.shape)),
        "shot noise": lambda picture: _to_bytes(generator.poisson(picture / 255 * 250) / 250),
        "Gaussian blur": lambda picture: _to_bytes(gaussian_filter(picture / 255, (0.6, 0.6, 0))),
        "contrast": lose_contrast,
        "brightness": brighten,
        "JPEG": compress,
        "pixelate": pixelate,
    }


def count(before: Seen, now: Seen, *, trials: int, seed: int) -> dict[str, int]:
    """Count the trials in which each aspect of 200 pictures has changed against 800 others, and any of them."""
    found: dict[str, int] = {"any": 0}
    for trial in range(trials):
        generator = np.random.default_rng([seed, trial])
        first, second = (
            seen.subset(generator.permutation(len(seen.logits))[:num])
            for seen, num in ((before, NUM_REFERENCE), (now, NUM_NEW))
        )
        aspects = compare(first, second, classes=[str(label) for label in range(before.logits.shape[1])])
        for aspect in aspects:
            found[aspect.name] = found.get(aspect.name, 0) + aspect.changed
        found["any"] += any(aspect.changed for aspect in aspects)
    return found


def count_false(own: Seen, *, trials: int) -> dict[str, int]:
    """Part the images anew in each trial."""
    totals: dict[str, int] = {}
    for trial in range(trials):
        order = np.random.default_rng([0, trial]).permutation(len(own.logits))
        first, second = own.subset(order[:NUM_REFERENCE]), own.subset(order[NUM_REFERENCE:][:NUM_NEW])
        for name, num in count(first, second, trials=1, seed=trial).items():
            totals[name] = totals.get(name, 0) + num
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    network = Network.load(run.path)
    kernels.enable(network.device)
    images = read_split(run.recipe, "validation", data_dir=arguments.data_dir).images[:NUM_IMAGES].numpy()
    own = look_at(network, images)
    reference, others = own.subset(np.arange(NUM_CORRUPTED, NUM_IMAGES)), images[:NUM_CORRUPTED].transpose(0, 2, 3, 1)
    power = {}
    for place, (name, corrupt) in enumerate(make_corruptions(np.random.default_rng(0)).items()):
        corrupted = np.stack([corrupt(picture) for picture in others]).transpose(0, 3, 1, 2)
        theirs = look_at(network, np.ascontiguousarray(corrupted))
        power[name] = {"trials": POWER_TRIALS, **count(reference, theirs, trials=POWER_TRIALS, seed=1 + place)}
        print(name, power[name], flush=True)
    result = {
        "recipe": run.recipe.name,
        "num_reference": NUM_REFERENCE,
        "num_pictures": NUM_NEW,
        "alarm_at": ALARM_AT,
        "false_alarms": {"trials": FALSE_TRIALS, **count_false(own, trials=FALSE_TRIALS)},
        "power": power,
    }
    write_record(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()
