"""By which scores pictures of classes that a network has not learned are told from its own: how they were chosen.

The network is a trial that knows some classes of a data set; strangers are the training images of the others, and what
is made here. The trial's validation images are the familiar ones, one half to divide scores by and one to compare with.
No test image is read. Writes held_out_classes.json.

    python held_out_classes.py RUN OTHERS --data-dir DIR
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from record import write_record
from strangers import Labelled, Seen, auroc, get_to_know, look_at, look_at_few, score
from torch import Tensor

from reslab import Network, Run, load
from reslab.data.recipe_data import read_split
from reslab.machine import kernels

NUM, NUM_MADE = 3000, 300
SUMMED = ("nearest training images", "energy", "length of features", "relative Mahalanobis distance", "texture")


def make_far(own: Tensor) -> dict[str, Tensor]:
    """Give pictures that show nothing; other ones than those of strangers.py."""
    generator = torch.Generator().manual_seed(5)
    low = torch.rand(NUM_MADE, 3, 5, 5, generator=generator)
    blobs = torch.nn.functional.interpolate(low, size=32, mode="bicubic").clamp(0, 1)
    level, noise = (torch.rand(NUM_MADE, 3, *size, generator=generator) for size in ((1, 1), (32, 32)))
    side = torch.randint(2, 9, (NUM_MADE, 1, 1), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    odd = ((rows // side + columns // side) % 2)[:, None]
    colours = torch.rand(2, NUM_MADE, 3, 1, 1, generator=generator)
    tiles = own[:NUM_MADE].unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)
    tiles = tiles[:, :, torch.randperm(16, generator=generator)].reshape(NUM_MADE, 3, 4, 4, 8, 8)
    return {
        "blobs": (255 * blobs).to(torch.uint8),
        "faint noise": (190 * level + 60 * noise).to(torch.uint8),
        "chequers": (255 * torch.where(odd.bool(), colours[0], colours[1])).to(torch.uint8),
        "shuffled tiles": tiles.permute(0, 1, 2, 4, 3, 5).reshape(NUM_MADE, 3, 32, 32),
    }


def scale(scores: NDArray[np.float64], held_out: NDArray[np.float64]) -> NDArray[np.float64]:
    """Limit and divide a score as familiarity does."""
    low, middle, high = np.quantile(held_out, (0.05, 0.5, 0.95))
    return np.asarray(np.minimum(scores, high) / (middle - low))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("others", help="A data expression.")
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    network = Network.load(run.path)
    kernels.enable(network.device)
    train, own = (read_split(run.recipe, split, data_dir=arguments.data_dir) for split in ("train", "validation"))
    known = look_at_few(network, train)
    others = load(arguments.others, "train", data_dir=arguments.data_dir).images
    some = torch.randperm(len(others), generator=torch.Generator().manual_seed(0))[:NUM]
    strangers = {"held-out classes": others[some], **make_far(own.images[:NUM_MADE])}
    seen = look_at(network, own.images[:NUM])
    held_out, familiar = (Seen(*(each[part::2] for each in seen)) for part in (0, 1))
    familiarity = get_to_know(known, Labelled(held_out, own.labels[:NUM:2]))
    before, scores, *theirs = (
        score(each, known=known.seen.features, familiarity=familiarity)
        for each in (held_out, familiar, *(look_at(network, pixels) for pixels in strangers.values()))
    )
    sums = [each for num in (1, 2, 3, 4, 5) for each in combinations(SUMMED, num)]

    def add(found: dict[str, NDArray[np.float64]], names: tuple[str, ...]) -> NDArray[np.float64]:
        return np.asarray(np.sum([scale(found[name], before[name]) for name in names], axis=0))

    result = {
        "recipe": run.recipe.name,
        "classes": network.classes,
        "strangers": arguments.others,
        "auroc": {
            " + ".join(names): {
                kind: auroc(add(scores, names), add(found, names))
                for kind, found in zip(strangers, theirs, strict=True)
            }
            for names in sums
        },
    }
    write_record(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()
