"""How much of the pretrained network to thaw: all of it or its upper half, batch norm unsettled or kept, in equal time.

500 images of each class of CIFAR-10 are trained on, and 3,000 other training images judge. The test split is not read.

    python benchmarks/thawing.py --minutes 5          writes benchmarks/thawing.json
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from record import write_record

from reslab.data.load import load
from reslab.fitting import beside
from reslab.machine import kernels
from reslab.machine.device import pick_device
from reslab.machine.memory import keep_freed_memory
from reslab.recipe.recipe import Recipe, derive
from reslab.training.budget import within

PER_CLASS, JUDGING = 500, 300  # images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    kernels.enable(torch.device("cpu"))
    parts = cut()
    whole = {"freeze": (), "freeze_norms": False}
    upper = beside.thaw(parts.training)
    ways = {
        "all layers": derive(upper, name="thawed", **whole),
        "upper half": derive(upper, name="thawed", freeze_norms=False),
        "upper half, statistics kept": upper,
    }
    result = {}
    for name, recipe in ways.items():
        result[name] = measure(recipe, parts, minutes=options.minutes)
        print(name, result[name], flush=True)
    write_record(options.out, {"images_per_class": PER_CLASS, "minutes": options.minutes, "ways": result})


def cut() -> beside.Parts:
    """Draw the images that are trained on, and those that judge."""
    images, generator = load("cifar10", "train", image_size=32), np.random.default_rng(0)
    labels = images.labels.numpy()
    places = np.stack([generator.permutation(np.flatnonzero(labels == label)) for label in range(10)])
    end = PER_CLASS + JUDGING
    return beside.Parts(images.subset(places[:, :PER_CLASS].ravel()), images.subset(places[:, PER_CLASS:end].ravel()))


def measure(recipe: Recipe, parts: beside.Parts, *, minutes: float) -> dict[str, float]:
    """Train what fits into the time, and judge it."""
    precision = beside.precision_of(recipe)
    recipe = within(recipe, minutes=minutes, images=parts.training, device=pick_device("cpu"), precision=precision)
    network, log = beside.train(parts, recipe, seed=0, until=float("inf"), silent=True)
    hits = network.logits(parts.held_out.images).argmax(1) == parts.held_out.labels
    return {
        "updates": log[-1].updates,
        "seconds": round(sum(epoch.seconds for epoch in log), 1),
        "train_accuracy": round(log[-1].train_accuracy, 4),
        "accuracy": round(float(hits.float().mean()), 4),
    }


if __name__ == "__main__":
    main()
