"""What `--deterministic` costs on a processor: updates of the lab's network with and without it, alternated.

Counted in processor time, which other programs on the machine do not change.

    python benchmarks/deterministic.py          writes benchmarks/deterministic.json
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from record import write_record
from torch import Tensor

from reslab import models
from reslab.machine import kernels
from reslab.recipe.shipped import RECIPES
from reslab.training.determinism import strictly
from reslab.training.optim import make_optimizer
from reslab.training.step import update


def objective(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="lab-resnet32")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    kernels.enable(torch.device("cpu"))
    recipe = RECIPES[options.recipe]
    model = models.build(recipe.model, num_classes=10).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(model, settings=recipe.optimizer, backbone=1.0)
    batch = torch.randn(recipe.batch_size, 3, 32, 32), torch.randint(10, (recipe.batch_size,))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for pair in range(options.pairs + 2):
        for strict in (False, True):
            with strictly(strict):
                began = time.process_time()
                update(model, optimizer, objective=objective, chunks=[batch], rate=0.01)
                if pair >= 2:
                    seconds[strict].append(time.process_time() - began)
    usual, strict_one = (statistics.median(seconds[strict]) for strict in (False, True))
    ratios = [strict / usual for usual, strict in zip(seconds[False], seconds[True], strict=True)]
    write_record(
        options.out,
        {
            "recipe": recipe.name,
            "batch_size": recipe.batch_size,
            "pairs": options.pairs,
            "seconds": round(usual, 4),
            "seconds_deterministic": round(strict_one, 4),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_quartiles": [round(part, 3) for part in statistics.quantiles(ratios, n=4)[::2]],
        },
    )


if __name__ == "__main__":
    main()
