"""Batch norm's statistics taken anew over the training images, against those that training left behind.

A trained network's validation accuracy with its own running statistics, then with the mean of its chunks' statistics
over one more epoch, as augmented as the last one and at the size of the images that it is evaluated on.

    python benchmarks/norm_statistics.py RUN --data-dir DIR          writes benchmarks/norm_statistics.json
"""

import argparse
import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from record import write_record

from reslab.data.batches import Batches
from reslab.data.images import ImageSet
from reslab.data.recipe_data import read_split
from reslab.models import Classifier
from reslab.network.network import Network
from reslab.recipe.recipe import Recipe, Standardize, derive
from reslab.runs import Run


def validate(network: Network, images: ImageSet) -> dict[str, float]:
    """Give accuracy and mean loss."""
    logits = network.logits(images.images)
    return {
        "accuracy": round(float((logits.argmax(1) == images.labels).float().mean()), 5),
        "loss": round(float(F.cross_entropy(logits, images.labels)), 5),
    }


@torch.no_grad()
def take_anew(model: Classifier, images: ImageSet, *, recipe: Recipe, by: Standardize, epoch: int) -> Classifier:
    """Copy a network, with the plain mean of the statistics of each chunk of an epoch's batches."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all
    chunks = derive(
        recipe, name="chunks", batch_size=recipe.micro_batch_size or recipe.batch_size, micro_batch_size=None
    )
    for batch, _ in Batches(images, recipe=chunks, by=by, seed=0, device=torch.device("cpu")).epoch(epoch):
        model(batch.to(memory_format=torch.channels_last))
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    recipe = Run.open(options.run).recipe
    network = Network.load(options.run)
    train, held = (read_split(recipe, split, data_dir=options.data_dir) for split in ("train", "validation"))
    anew = take_anew(network.module, train, recipe=recipe, by=network.metadata.standardize, epoch=recipe.epochs)
    found = {
        "recipe": recipe.name,
        "validation_images": len(held.labels),
        "running": validate(network, held),
        "anew": validate(Network(anew, network.metadata), held),
    }
    write_record(options.out, found)


if __name__ == "__main__":
    main()
