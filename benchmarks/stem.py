"""What an update of fast_conv gains by a narrower stem: half of the whitened patches, alternated with all of them.

The narrower network lacks the negative of each direction. Updates of `fast-conv` on noise at 32 pixels, in one thread;
times are the processor's. Accuracy is not measured here.

    python benchmarks/stem.py          writes benchmarks/stem.json
"""

import argparse
from functools import partial
from pathlib import Path
from statistics import median

import torch
from alternate import alternate_here, compare
from record import write_record
from selection import Updates

from reslab.machine.memory import keep_freed_memory
from reslab.models.fast_conv import PATCH, FastConvClassifier, Group
from reslab.models.layers import conv3x3
from reslab.recipe.shipped import RECIPES
from reslab.training.optim import make_optimizer

IMAGES, WARMUP = 1000, 1


def make_narrower() -> Updates:
    """Make updates of the network with half of its stem."""
    recipe = RECIPES["fast-conv"]
    updates = Updates(recipe, num_images=IMAGES)
    model = updates.model
    assert isinstance(model, FastConvClassifier)
    half = model.stem.out_channels // 2
    group = model.groups[0]
    assert isinstance(group, Group)
    model.stem = torch.nn.Conv2d(3, half, PATCH)
    model.stem.weight.requires_grad_(False)
    group.conv1 = conv3x3(half, group.conv1.out_channels)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    updates.optimizer = make_optimizer(model, settings=recipe.optimizer)
    return updates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    whole, narrower = Updates(RECIPES["fast-conv"], num_images=IMAGES), make_narrower()
    ways = {"all": partial(whole.seconds, None), "half": partial(narrower.seconds, None)}
    times = alternate_here(ways, turns=options.pairs, warmup=WARMUP)
    found = {
        "pairs": options.pairs,
        "seconds": {way: round(median(taken), 3) for way, taken in times.items()},
        "ratio": compare(times["all"], times["half"]),
    }
    write_record(options.out, found)


if __name__ == "__main__":
    main()
