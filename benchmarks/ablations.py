"""What single parts of `fast-conv` gain on CIFAR-10: each variant lacks one or has one more, with the same seed.

Accuracy is that of 5,000 validation images after the last of four epochs, half of the recipe's. Variants that are named
are added to the record, which keeps the others.

    python benchmarks/ablations.py [VARIANT ...] --data-dir DIR          writes benchmarks/ablations.json
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from record import write_record
from torch import Tensor

from reslab.models import Classifier, fast_conv
from reslab.recipe.networks import FastConv
from reslab.recipe.recipe import Crop, Flip, derive
from reslab.recipe.shipped import RECIPES
from reslab.study.scaling import scale_recipe
from reslab.training import loop, train
from reslab.training.averaging import begin_average

HELD_OUT = 5000
BASE = derive(scale_recipe(RECIPES["fast-conv"], 0.5), name="ablation", validation=HELD_OUT)
UPDATES = BASE.epochs * -(-(50_000 - HELD_OUT) // BASE.batch_size)


class LearnedStem(fast_conv.FastConvClassifier):
    """The network whose stem begins as PyTorch draws it and is trained like any other convolution."""

    def __init__(self, options: FastConv, *, num_classes: int, channels: int) -> None:
        super().__init__(options, num_classes=num_classes, channels=channels)
        self.stem.weight.requires_grad_(True)

    def prepare(self, images: Tensor) -> None:
        """Leave the stem as it is."""


class Lookahead:
    """Every five updates the network goes back to a slow average of itself, which follows it less and less.

    Source: Zhang et al. 2019, arXiv:1907.08610, with the decay of KellerJordan/cifar10-airbench (`airbench94`).
    """

    BETWEEN, DECAY = 5, 0.95

    def __init__(self) -> None:
        self.updates = 0

    @torch.no_grad()
    def __call__(self, average: Classifier | None, model: Classifier, **_: Any) -> Classifier:
        """Take the place of `take_in`; the slow network begins as the fast one is after its first update."""
        self.updates += 1
        if average is None:
            return begin_average(model)
        if self.updates % self.BETWEEN and self.updates < UPDATES:
            return average
        decay = self.DECAY**self.BETWEEN * (self.updates / UPDATES) ** 3
        fast = model.state_dict()
        for name, slow in average.state_dict().items():
            if slow.is_floating_point():
                slow.lerp_(fast[name], 1 - decay)
                fast[name].copy_(slow)
        return average


Variant = tuple[dict[str, Any], Callable[[], AbstractContextManager[Any]]]  # changes of the recipe, and of the code
VARIANTS: dict[str, Variant] = {
    "as shipped": ({}, nullcontext),
    "flip drawn anew": ({"augment": (Flip(), Crop(pixels=2, fill="reflect"))}, nullcontext),
    "learned stem": ({"freeze": ()}, lambda: mock.patch.object(fast_conv, "FastConvClassifier", LearnedStem)),
    "lookahead": ({}, lambda: mock.patch.object(loop, "take_in", Lookahead())),
}


def validate(variant: str, *, seed: int, data_dir: Path | None) -> dict[str, Any]:
    """Train one variant; give what it reaches in the end, and after each epoch."""
    changes, patched = VARIANTS[variant]
    with tempfile.TemporaryDirectory() as folder, patched():
        recipe = derive(BASE, name="ablation", **changes)
        log = train(recipe, out=Path(folder) / "run", seed=seed, data_dir=data_dir).log
    last = log[-1]
    return {
        "seed": seed,
        "validation_accuracy": last.validation_accuracy,
        "validation_loss": last.validation_loss,
        "train_accuracy": last.train_accuracy,
        "by_epoch": [epoch.validation_accuracy for epoch in log],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", default=list(VARIANTS), help=", ".join(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = json.loads(options.out.read_text())["result"] if options.out.exists() else {}
    for variant in options.variants:
        found[variant] = validate(variant, seed=options.seed, data_dir=options.data_dir)
        write_record(
            options.out, {"recipe": "fast-conv", "epochs": BASE.epochs, "validation_images": HELD_OUT, **found}
        )


if __name__ == "__main__":
    main()
