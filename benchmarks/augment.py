"""Images per second that one core shuffles, standardises and augments, for the two ways of augmenting.

python benchmarks/augment.py                        writes benchmarks/augment.json
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from record import write_record
from train_step import make_images

from reslab.data.batches import Batches
from reslab.recipe.shipped import find_recipe
from reslab.recipe.shipped.lab import CIFAR10_PIXELS

RECIPES = {"flip and sub-pixel shift": "lab-resnet32", "pad, crop and flip": "resnet-20"}
NUM_IMAGES = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = make_images(NUM_IMAGES, side=32)
    result = {}
    for what, name in RECIPES.items():
        batches = Batches(images, recipe=find_recipe(name), by=CIFAR10_PIXELS, seed=0, device=torch.device("cpu"))
        rates = []
        for epoch in range(arguments.epochs):
            began = time.perf_counter()
            seen = sum(len(labels) for _, labels in batches.epoch(epoch))
            rates.append(seen / (time.perf_counter() - began))
        result[what] = {"images_per_second": round(statistics.median(rates)), "slowest": round(min(rates))}
    write_record(arguments.out, result)


if __name__ == "__main__":
    main()
