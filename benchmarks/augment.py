"""Images per second that one core shuffles, standardises and augments, for each way of augmenting.

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
from reslab.recipe.recipe import ColorJitter, CutMix, Mixup, RandomErasing, Recipe, TrivialAugment, derive
from reslab.recipe.shipped import find_recipe
from reslab.recipe.shipped.lab import CIFAR10_PIXELS

NUM_IMAGES = 50_000
PLAIN = derive(find_recipe("resnet-20"), name="plain", augment=())
RECIPES: dict[str, Recipe] = {
    "flip and sub-pixel shift": find_recipe("lab-resnet32"),
    "pad, crop and flip": find_recipe("resnet-20"),
    "none": PLAIN,
    **{
        part.kind: derive(PLAIN, name=part.kind, augment=(part,))
        for part in (RandomErasing(), ColorJitter(), TrivialAugment())
    },
    **{part.kind: derive(PLAIN, name=part.kind, mixing=(part,)) for part in (Mixup(), CutMix())},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = make_images(NUM_IMAGES, side=32)
    result = {}
    for what, recipe in RECIPES.items():
        batches = Batches(images, recipe=recipe, by=CIFAR10_PIXELS, seed=0, device=torch.device("cpu"))
        rates = []
        for epoch in range(arguments.epochs):
            began = time.perf_counter()
            seen = sum(len(labels) for _, labels in batches.epoch(epoch))
            rates.append(seen / (time.perf_counter() - began))
        result[what] = {"images_per_second": round(statistics.median(rates)), "slowest": round(min(rates))}
    write_record(arguments.out, result)


if __name__ == "__main__":
    main()
