"""What `reslab fit` makes of a few of CIFAR-10's images: three draws of each number, the test split opened once.

It chooses exactly as the command does, with the networks that `reslab[pretrained]` installs and nothing in the cache.
Test images are classified by the written network's head on the features of its backbone, which are computed once for
all draws. Seconds are those of a clock, of choosing and solving: loading, evaluation and report come on top.

    python benchmarks/fit.py --per-class 50 --minutes 1          writes results/fit/cifar10-50.json
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from record import write_record

from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.fitting.choice import Backbone, Budget, backbones, choose
from reslab.measure.estimates import proportion
from reslab.pretrained import Pretrained

NETWORK, DRAWS = "efficientnet_lite0", 3
RESULTS = Path(__file__).parents[1] / "results" / "fit"


def draw(images: ImageSet, *, num: int, seed: int) -> ImageSet:
    """Draw so many images of each class."""
    generator, labels = np.random.default_rng(1000 + seed), images.labels.numpy()
    places = [generator.permutation(np.flatnonzero(labels == label))[:num] for label in range(len(images.classes))]
    return images.subset(np.concatenate(places))


def fit_draw(images: ImageSet, test: ImageSet, *, minutes: float) -> dict[str, Any]:
    networks = [each for each in backbones(stored_size=images.images.shape[2]) if each.network == NETWORK]
    usual = os.environ.get("RESLAB_CACHE")
    load_before, began = os.getloadavg()[0], time.perf_counter()
    with tempfile.TemporaryDirectory() as empty:
        os.environ["RESLAB_CACHE"] = empty
        found, candidates = choose(images, candidates=networks, budget=Budget(began + 60 * minutes), say=print)
    seconds, load_after = time.perf_counter() - began, os.getloadavg()[0]
    os.environ.pop("RESLAB_CACHE") if usual is None else os.environ.update(RESLAB_CACHE=usual)
    features = compute_once(test, found.backbone)
    right = found.head.logits(features).argmax(1) == test.labels.numpy()
    accuracy = proportion(np.array(right.sum()), total=np.array(len(right)))
    return {
        "test_accuracy": accuracy.model_dump(),
        "seconds": round(seconds, 1),
        "load": [round(load_before, 1), round(load_after, 1)],
        "candidates": [each.model_dump(exclude_none=True) for each in candidates],
    }


def compute_once(test: ImageSet, backbone: Backbone) -> np.ndarray:
    return Pretrained(backbone.network, image_size=backbone.image_size).features(test.images).astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", type=int, required=True)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test = load("cifar10", "train"), load("cifar10", "test")
    draws = [
        fit_draw(draw(train, num=options.per_class, seed=seed), test, minutes=options.minutes) for seed in range(DRAWS)
    ]
    mean = fmean(each["test_accuracy"]["value"] for each in draws)
    facts = {"images_per_class": options.per_class, "minutes": options.minutes, "mean_test_accuracy": round(mean, 4)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_record(RESULTS / f"cifar10-{options.per_class}.json", {**facts, "network": NETWORK, "draws": draws})


if __name__ == "__main__":
    main()
