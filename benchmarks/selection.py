"""What learning from the hardest half of each batch gains on the digits, and what an update of fast_conv then costs.

Accuracy is that of validation images after the last epoch, five seeds. Updates, on noise, are taken in turn with and
without the choice, in one thread; their time is that of the processor, which a busy machine does not stretch.

    python benchmarks/selection.py          writes benchmarks/selection.json
"""

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from averaging import DIGITS, validate
from record import write_record

from reslab import models
from reslab.data.images import ImageSet
from reslab.machine.precision import pick_precision
from reslab.recipe.recipe import Recipe, Selection, derive
from reslab.recipe.shipped import RECIPES
from reslab.training.distributed import Share
from reslab.training.objective import make_objective
from reslab.training.optim import make_optimizer
from reslab.training.selection import choose
from reslab.training.step import make_forward, update

SELECTIONS = {"all": None, "half": Selection(), "half from epoch 5 on": Selection(epoch=5)}
CPU = torch.device("cpu")


class Updates:
    """Updates of a network on one batch of noise at 32 pixels, with or without the choice before it."""

    def __init__(self, recipe: Recipe, *, num_images: int) -> None:
        torch.manual_seed(0)
        classes = tuple(map(str, range(10)))
        images = ImageSet(torch.zeros(10, 3, 32, 32, dtype=torch.uint8), torch.arange(10), classes, "noise", "train")
        self.chunk_size = recipe.chunk_size or num_images
        self.model = models.build(recipe.model, num_classes=10).train()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.model, settings=recipe.optimizer)
        self.objective = make_objective(recipe, images=images, teacher=None, device=CPU)
        self.forward = make_forward(self.model, device=CPU, precision=pick_precision(device=CPU))
        labels = torch.randint(0, 10, (num_images,))
        self.batch = Share(torch.randn(num_images, 3, 32, 32), labels, 1.0, num_images)

    def seconds(self, selection: Selection | None) -> float:
        """Take one update at the rate 0; give the processor's time."""
        began = time.process_time()
        share = self.batch
        if selection is not None:
            share = choose(share, self.model, by=selection, objective=self.objective).share
        num_chunks = -(-len(share.labels) // self.chunk_size)
        chunks = list(zip(share.images.tensor_split(num_chunks), share.labels.tensor_split(num_chunks), strict=True))
        update(self.forward, self.optimizer, objective=self.objective, chunks=chunks, rate=0.0)
        return time.process_time() - began


def measure_cost(*, pairs: int) -> dict[str, float]:
    """Give the median share of an update's time that is left where half of its images are learned from."""
    updates = Updates(RECIPES["fast-conv"], num_images=1000)
    taken = [(updates.seconds(None), updates.seconds(Selection())) for _ in range(pairs + 1)][1:]
    return {
        "pairs": pairs,
        "all_seconds": round(median(whole for whole, _ in taken), 3),
        "half_seconds": round(median(half for _, half in taken), 3),
        "share": round(median(half / whole for whole, half in taken), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    digits = {
        name: validate(
            derive(DIGITS, name="selection", validation=300, selection=selection),
            seeds=options.seeds,
        )
        for name, selection in SELECTIONS.items()
    }
    cost = measure_cost(pairs=options.pairs)
    found = {"recipe": DIGITS.name, "seeds": options.seeds, "validation_images": 300, **digits}
    write_record(options.out, {**found, "fast-conv, an update on 1,000 images": cost})


if __name__ == "__main__":
    main()
