"""Whether `data plan` promises what comes true, and how many labels its order saves.

All images are training images. Curves are compared on CIFAR-100's first 30 classes, ten of them at a time, with 20 or
40 images a class. The chosen one is tried on CIFAR-10, with 20 to 200 images a class: does the interval hold the
accuracy that a head on four times the images has? The order of as many candidates as `data plan` looks at is made once
from 10 labelled images a class, and compared with random choice. Writes plan.json.

    python plan.py --data-dir DIR
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import write_record

from reslab import Pretrained, load
from reslab.fitting.choice import Features
from reslab.fitting.growth import measure_growth
from reslab.fitting.labelling import STRENGTH, order_pictures
from reslab.fitting.planning import CANDIDATES, IMAGE_SIZE, NETWORK
from reslab.measure.calibration import fit_temperature_smoothed
from reslab.measure.learning_curve import FORECAST_CONFIDENCE, Curve, extrapolate, morgan_mercer_flodin
from reslab.measure.metrics import Floats, log_loss
from reslab.pretrained.heads import STRENGTHS, Head, Integers, solve

NUM_CLASSES, TIMES = 10, 4
TRIALS = {20: 50, 50: 30, 100: 12, 200: 8}  # by images a class
CURVE_CLASSES, CURVE_TRIALS = 30, {20: 12, 40: 12}
TEST_IMAGES, CHOOSING = 10_000, 1000
LABEL_TRIALS, LABELLED = 8, 10
LABELS = (25, 50, 100, 150, 200, 300, 400)
ORDERED = 200


def power_law(x: float, error: Floats, exponent: Floats, floor: Floats) -> Floats:
    return np.asarray(error * (floor + (1 - floor) * x**-exponent))


def logarithm(x: float, error: Floats, exponent: Floats, floor: Floats) -> Floats:
    """Let the accuracy grow evenly with the logarithm of the data (Mahmood et al. 2022, arXiv:2207.01725)."""
    return np.asarray((error * (1 - exponent / 4 * np.log(x))).clip(1e-5, 1 - 1e-5))


CURVES: dict[str, Curve] = {
    "Morgan-Mercer-Flodin": morgan_mercer_flodin,
    "power law": power_law,
    "logarithm": logarithm,
}


class Pool:
    """Features of the first classes of a training split."""

    def __init__(self, expression: str, data_dir: Path | None, *, num_classes: int) -> None:
        images = load(expression, "train", data_dir=data_dir)
        images = images.subset(np.flatnonzero(images.labels.numpy() < num_classes))
        self.features = Pretrained(NETWORK, image_size=IMAGE_SIZE).features(images.images)
        self.labels = images.labels.numpy()

    def draw(self, seed: list[int], num: int) -> tuple[list[Integers], Integers]:
        """Draw the places of 1, 2 and 4 times `num` images of each of ten classes, and those of all others of them."""
        generator = np.random.default_rng(seed)
        chosen = generator.permutation(self.labels.max() + 1)[:NUM_CLASSES]
        by_class = [generator.permutation(np.flatnonzero(self.labels == label)) for label in chosen]
        sets = [np.concatenate([places[: times * num] for places in by_class]) for times in (1, TIMES)]
        rest = np.concatenate([places[TIMES * num :] for places in by_class])
        return sets, generator.permutation(rest)[:TEST_IMAGES]

    def take(self, places: Integers) -> tuple[Features, Integers]:
        return self.features[places], np.unique(self.labels[places], return_inverse=True)[1]


def answer(train: tuple[Features, Integers], test: tuple[Features, Integers]) -> tuple[NDArray[np.bool_], Integers]:
    """Say which test images are answered rightly, but for some that choose the head's strength; and their labels."""
    features, labels = test
    some, others = slice(CHOOSING), slice(CHOOSING, None)

    def loss(head: Head) -> float:
        logits = head.logits(features[some])
        return log_loss(logits / fit_temperature_smoothed(logits, labels[some]), labels[some])

    best = min(solve("lda", *train, strengths=STRENGTHS["lda"]), key=loss)
    return best.logits(features[others]).argmax(1) == labels[others], labels[others]


def widen(low: float, value: float, high: float, *, truth: float, num: int) -> tuple[float, float]:
    """Add what the truth itself is uncertain by, since it was counted on `num` images."""
    noise = (1.645**2) * truth * (1 - truth) / num
    return value - ((value - low) ** 2 + noise) ** 0.5, value + ((high - value) ** 2 + noise) ** 0.5


def try_curves(pool: Pool) -> dict[str, Any]:
    """Compare the curves by coverage, width and the interval score of Gneiting and Raftery 2007 (less is better)."""
    found: dict[str, list[tuple[bool, float, float]]] = {name: [] for name in CURVES}
    for num, trials in CURVE_TRIALS.items():
        for trial in range(trials):
            (small, large), rest = pool.draw([1, num, trial], num)
            growth = measure_growth(*pool.take(small))
            right, _ = answer(pool.take(large), pool.take(rest))
            truth = float(right.mean())
            for name, curve in CURVES.items():
                (estimate,) = extrapolate(growth.shares, growth.right, to=(TIMES,), curve=curve)
                low, high = widen(estimate.low, estimate.value, estimate.high, truth=truth, num=len(right))
                missed = max(0.0, low - truth, truth - high)
                found[name].append((missed == 0, estimate.high - estimate.low, high - low + 20 * missed))
    return {
        name: dict(zip(("inside", "width", "interval_score"), np.mean(each, axis=0).tolist(), strict=True))
        for name, each in found.items()
    }


def try_plans(pool: Pool) -> dict[str, Any]:
    """Count the trials whose interval holds the accuracy with four times the images, of all and of each class."""
    result: dict[str, Any] = {}
    for num, trials in TRIALS.items():
        inside, width, error, of_classes = [], [], [], []
        for trial in range(trials):
            (small, large), rest = pool.draw([2, num, trial], num)
            growth = measure_growth(*pool.take(small))
            right, labels = answer(pool.take(large), pool.take(rest))
            (estimate,) = extrapolate(growth.shares, growth.right, to=(TIMES,))
            inside.append(bool(estimate.low <= right.mean() <= estimate.high))
            width.append(estimate.high - estimate.low)
            error.append(estimate.value - float(right.mean()))
            for label in range(NUM_CLASSES):
                among = growth.right[:, growth.labels == label]
                (each,) = extrapolate(growth.shares, among, to=(TIMES,))
                of_classes.append(bool(each.low <= right[labels == label].mean() <= each.high))
        result[str(num)] = {
            "trials": trials,
            "inside": sum(inside),
            "mean_width": float(np.mean(width)),
            "mean_error": float(np.mean(error)),
            "mean_absolute_error": float(np.mean(np.abs(error))),
            "classes": len(of_classes),
            "classes_inside": sum(of_classes),
        }
        print(num, result[str(num)], flush=True)
    total = {
        key: sum(each[key] for each in result.values()) for key in ("trials", "inside", "classes", "classes_inside")
    }
    return {"confidence": FORECAST_CONFIDENCE, "by_images_a_class": result, **total}


def try_order(pool: Pool) -> dict[str, Any]:
    """Compare the accuracy with the pictures that come first with that with random ones."""
    accuracies: dict[str, list[list[float]]] = {"ordered": [], "random": []}
    for trial in range(LABEL_TRIALS):
        (start, _), rest = pool.draw([3, trial], LABELLED)
        candidates, test = rest[:CANDIDATES], rest[CANDIDATES:]
        orders = {
            "ordered": order_pictures(*pool.take(start), pool.features[candidates], num=ORDERED),
            "random": np.arange(CANDIDATES),
        }
        features, labels = pool.take(test)
        for name, order in orders.items():
            row = []
            for num in (0, *LABELS):
                if num > len(order):
                    break
                both = np.concatenate([start, candidates[order[:num]]])
                (head,) = solve("lda", *pool.take(both), strengths=(STRENGTH,))
                row.append(float((head.logits(features).argmax(1) == labels).mean()))
            accuracies[name].append(row)
        print(trial, {name: rows[-1] for name, rows in accuracies.items()}, flush=True)
    means = {name: np.mean(rows, axis=0) for name, rows in accuracies.items()}
    needed = np.interp(means["ordered"][1:], means["random"], (0, *LABELS))
    ordered = LABELS[: len(needed)]
    return {
        "trials": LABEL_TRIALS,
        "labelled": LABELLED * NUM_CLASSES,
        "candidates": CANDIDATES,
        "labels": [0, *LABELS],
        "accuracy": {name: each.tolist() for name, each in means.items()},
        "random_needed": dict(zip(map(str, ordered), needed.tolist(), strict=True)),
        "fewer": {str(num): float(1 - num / each) for num, each in zip(ordered, needed, strict=True)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    cifar10 = Pool("cifar10", arguments.data_dir, num_classes=NUM_CLASSES)
    result = {"order": try_order(cifar10), "plans": try_plans(cifar10)}
    curves = try_curves(Pool("cifar100", arguments.data_dir, num_classes=CURVE_CLASSES))
    write_record(Path(__file__).with_suffix(".json"), {"network": NETWORK, "curves": curves, **result})


if __name__ == "__main__":
    main()
