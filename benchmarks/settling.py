"""What renewing batch norm's statistics at the end of a run changes: validation images of CIFAR-10, after few updates
and after many.

Each network is trained once, in float32 and without the renewal; then copies of it are measured with the statistics
that training left, and with statistics of whole or of augmented training images. The test split is not read.

    python benchmarks/settling.py --data-dir DIR          writes benchmarks/settling.json
"""

import argparse
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from record import write_record
from torch import Tensor

from reslab.data.batches import Batches, standardize
from reslab.data.images import ImageSet
from reslab.data.recipe_data import read_split
from reslab.models.layers import ImageClassifier
from reslab.network.network import Network
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Flip, Linear, Recipe, Sgd, Shift, derive
from reslab.training import train
from reslab.training.loop import Trainer
from reslab.training.statistics import BATCH_SIZE, NUM_IMAGES, renew_statistics

SMALL = Recipe(
    name="small",
    source="this benchmark",
    data="cifar10@600",
    validation=1000,
    augment=(Flip(), Shift(fraction=0.125)),
    model=PreActResNet(depth=8),
    optimizer=Sgd(peak_lr=0.1, weight_decay=5e-4),
    schedule=Linear(warmup=0.2),
    epochs=6,
    batch_size=128,
)
RECIPES = {
    "10 updates": derive(SMALL, name="few", updates=10),
    "240 updates": SMALL,
}


def measure(network: Network, images: ImageSet) -> dict[str, float]:
    """Give accuracy and mean loss on the validation images."""
    logits = network.logits(images.images)
    return {
        "accuracy": float((logits.argmax(1) == images.labels).float().mean()),
        "loss": float(F.cross_entropy(logits, images.labels)),
    }


def renewed(model: ImageClassifier, batches: Iterator[Tensor]) -> ImageClassifier:
    """Copy a network with its statistics renewed."""
    model = copy.deepcopy(model)
    renew_statistics(model, batches)
    return model


def compare(recipe: Recipe, *, seed: int, data_dir: Path | None) -> dict[str, dict[str, float]]:
    """Train once; measure what training left, and what each kind of renewal makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(recipe, out=Path(folder) / "run", seed=seed, compile="off", precision="float32", data_dir=data_dir)
        network = Network.load(run.path, device="cpu")
    model, by = network.module, network.metadata.standardize
    images, held_out = (read_split(recipe, split, data_dir=data_dir) for split in ("train", "validation"))
    batches = Batches(images, recipe=recipe, by=by, seed=seed, device=torch.device("cpu"))

    def whole(num_images: int) -> Iterator[Tensor]:
        stored = batches.stored(num_images=num_images, batch_size=BATCH_SIZE)
        return (standardize(chunk, by=by) for chunk in stored)

    def augmented() -> Iterator[Tensor]:
        return (chunk for chunk, _ in list(batches.epoch(recipe.epochs))[: NUM_IMAGES // recipe.batch_size])

    models = {
        "as training left them": model,
        f"{NUM_IMAGES} whole images": renewed(model, whole(NUM_IMAGES)),
        "all whole images": renewed(model, whole(len(images.labels))),
        f"{NUM_IMAGES} augmented images": renewed(model, augmented()),
    }
    return {name: measure(Network(each, network.metadata), held_out) for name, each in models.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    Trainer._settle = lambda self: None  # type: ignore[method-assign]
    found = {}
    for name, recipe in RECIPES.items():
        runs = [compare(recipe, seed=seed, data_dir=options.data_dir) for seed in range(options.seeds)]
        found[name] = {
            kind: {figure: round(fmean(run[kind][figure] for run in runs), 4) for figure in runs[0][kind]}
            for kind in runs[0]
        }
    write_record(options.out, {"seeds": options.seeds, "validation_images": SMALL.validation, "runs": found})


if __name__ == "__main__":
    main()
