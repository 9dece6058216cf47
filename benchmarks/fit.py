"""What `reslab fit` makes of images of CIFAR-10 or of a folder: some draws, the test split opened once for each.

It chooses exactly as the command does, with the networks that `reslab[pretrained]` installs and nothing in the cache.
Test images are classified by the written network's head on its features, those of the frozen network computed once for
all draws. Seconds are those of a clock, of choosing and training; loading, evaluation and report come on top.

    python benchmarks/fit.py --per-class 50 --minutes 1          writes results/fit/cifar10-50.json
    python benchmarks/fit.py --all --minutes 30 --draws 1        writes results/fit/cifar10-all.json
    python benchmarks/fit.py --data folder:signs --minutes 10    writes results/fit/signs-unequal.json
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import write_record

from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.data.sizes import find_image_size
from reslab.fitting import Fitted, find
from reslab.fitting.choice import LARGEST_STORED, Budget, Readers, backbones
from reslab.machine import kernels
from reslab.measure.estimates import proportion
from reslab.pretrained import Pretrained
from reslab.pretrained.fusion import compute_fused
from reslab.recipe.networks import EfficientNetLite, Fusion

NETWORK = "efficientnet_lite0"
SMALLEST_SHARE = 0.25  # of its pictures, that a folder's last class keeps; the first one keeps all
RESULTS = Path(__file__).parents[1] / "results" / "fit"


def draw(images: ImageSet, *, num: int, seed: int) -> ImageSet:
    """Draw so many images of each class, or all."""
    generator, labels = np.random.default_rng(1000 + seed), images.labels.numpy()
    places = [generator.permutation(np.flatnonzero(labels == label))[:num] for label in range(len(images.classes))]
    return images.subset(np.concatenate(places))


def draw_unequal(images: ImageSet, *, seed: int) -> ImageSet:
    """Draw ever fewer images of one class after the other."""
    generator, labels = np.random.default_rng(1000 + seed), images.labels.numpy()
    places = []
    for label, share in enumerate(np.linspace(1, SMALLEST_SHARE, len(images.classes))):
        own = generator.permutation(np.flatnonzero(labels == label))
        places.append(own[: max(2, round(share * len(own)))])
    return images.subset(np.concatenate(places))


def fit_draw(images: ImageSet, test: ImageSet, *, minutes: float, seed: int, keep: Path | None) -> dict[str, Any]:
    networks = [each for each in backbones(stored_size=images.images.shape[2]) if each.network == NETWORK]
    load_before, began = os.getloadavg()[0], time.perf_counter()
    with empty_cache():
        fitted = find(Readers(lambda resize: images), networks, budget=Budget.of(minutes), seed=seed, silent=False)
    seconds, load_after = time.perf_counter() - began, os.getloadavg()[0]
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        fitted.network.save(keep / f"{seed}.safetensors")
    right = classify(fitted, test) == test.labels.numpy()
    accuracy = proportion(np.array(right.sum()), total=np.array(len(right)))
    return {
        "test_accuracy": accuracy.model_dump(),
        "num_images": len(images.labels),
        "seconds": round(seconds, 1),
        "load": [round(load_before, 1), round(load_after, 1)],
        "candidates": [each.model_dump(exclude_none=True, mode="json") for each in fitted.candidates],
    }


@contextmanager
def empty_cache() -> Iterator[None]:
    """Compute all features anew."""
    usual = os.environ.get("RESLAB_CACHE")
    with tempfile.TemporaryDirectory() as empty:
        os.environ["RESLAB_CACHE"] = empty
        try:
            yield
        finally:
            os.environ.pop("RESLAB_CACHE") if usual is None else os.environ.update(RESLAB_CACHE=usual)


def classify(fitted: Fitted, test: ImageSet) -> NDArray[np.int64]:
    """Answer by the head on features, those of the frozen network from the cache where they are there."""
    network, options = fitted.network, fitted.recipe.model
    if isinstance(options, Fusion):
        features = compute_fused(network, test)
    else:
        assert isinstance(options, EfficientNetLite)
        size = options.resize or network.image_size
        features = torch.from_numpy(Pretrained(NETWORK, image_size=size).features(test.images))
    with torch.inference_mode():
        answers: NDArray[np.int64] = network.module.head(features).argmax(1).numpy()
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--per-class", type=int)
    what.add_argument("--all", action="store_true")
    what.add_argument("--data")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the networks")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kernels.enable(torch.device("cpu"))  # as the command line does
    expression = options.data or "cifar10"
    size = find_image_size(expression, largest=LARGEST_STORED)
    train, test = (load(expression, split, image_size=size) for split in ("train", "test"))
    draws = []
    for seed in range(options.draws):
        few = draw_unequal(train, seed=seed) if options.data else draw(train, num=options.per_class or 5000, seed=seed)
        draws.append(fit_draw(few, test, minutes=options.minutes, seed=seed, keep=options.keep))
    facts = {
        "images_per_class": None if options.data else options.per_class or 5000,
        "minutes": options.minutes,
        "mean_test_accuracy": round(fmean(each["test_accuracy"]["value"] for each in draws), 4),
    }
    folder = Path(expression.partition(":")[2].partition("?")[0]).name
    name = f"{folder}-unequal" if options.data else f"cifar10-{options.per_class or 'all'}"
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_record(RESULTS / f"{name}.json", {**facts, "network": NETWORK, "draws": draws})


if __name__ == "__main__":
    main()
