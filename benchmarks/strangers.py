"""How well a network tells strange pictures from its own: AUROC by three scores, and how its promise is kept.

Near strangers are CIFAR-100's test images, far ones are digits, noise and stripes. The network has seen none of them.
The test images of the run's own classes are the familiar ones; nothing is chosen by them. Writes strangers.json.

    python strangers.py RUN --data-dir DIR
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from record import write_record
from torch import Tensor

from reslab import Network, Run, load
from reslab.data.recipe_data import read_split
from reslab.machine import kernels
from reslab.network.familiarity import fit_familiarity
from reslab.network.finishing import finish
from reslab.records import SPLITS

NUM, TRIALS, PROMISED = 2000, 100, 0.95


def make_strangers(data_dir: Path | None) -> dict[str, Tensor]:
    """Give sets of pictures (N, 3, 32, 32) uint8 that show none of CIFAR-10's classes."""
    generator = torch.Generator().manual_seed(0)
    digits = load("digits", "test", image_size=32).images[:]
    noise = torch.randint(256, (NUM, 3, 32, 32), dtype=torch.uint8, generator=generator)
    phase, frequency = (torch.rand(NUM, 3, 1, 1, generator=generator) * factor for factor in (6.3, 2.0))
    slope = torch.rand(NUM, 1, 1, 1, generator=generator) * 2 - 1
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    stripes = 127.5 + 127.5 * torch.sin(frequency * (rows + slope * columns) + phase)
    return {
        "near: CIFAR-100": load("cifar100", "test", data_dir=data_dir).images[:],
        "far: digits": torch.as_tensor(digits).expand(-1, 3, -1, -1),
        "far: noise": noise,
        "far: stripes": stripes.to(torch.uint8),
    }


def auroc(own: NDArray[np.float64], strange: NDArray[np.float64]) -> float:
    """Give the share of pairs in which the picture of one's own has the higher score, ties by half."""
    order = np.sort(strange)
    below = np.searchsorted(order, own, "left") + np.searchsorted(order, own, "right")
    return float(below.mean() / 2 / len(strange))


def score(network: Network, pixels: Tensor, known: Tensor) -> dict[str, NDArray[np.float64]]:
    features = network.features(pixels)
    with torch.inference_mode():
        logits = network.module.head(features).double()
    assert network.familiarity is not None
    cosines = torch.nn.functional.normalize(features, dim=1) @ known.T
    return {
        "nearest training images": cosines.topk(10, dim=1).values[:, -1].double().numpy(),
        "energy": logits.logsumexp(dim=1).numpy(),
        "both": network.familiarity(features, logits.float()).double().numpy(),
        "largest probability": logits.softmax(dim=1).amax(dim=1).numpy(),
    }


def keep_promise(features: Tensor, logits: Tensor, known: Tensor) -> list[float]:
    """Part held-out and test images anew in each trial; give the shares of the latter that are answered."""
    shares, num = [], min(5000, len(features) // 2)
    for seed in range(TRIALS):
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
        familiarity = fit_familiarity(known, features[order[:num]], logits[order[:num]])
        assert familiarity is not None
        shares.append(float((familiarity(features[order[num:]], logits[order[num:]]) > 1 - PROMISED).float().mean()))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    network = Network.load(run.path)
    kernels.enable(network.device)
    train, *rest = (read_split(run.recipe, split, data_dir=arguments.data_dir) for split in SPLITS)
    own = dict(zip(SPLITS[1:], rest, strict=True))
    network = finish(network, images=train, held_out=own["validation"]).network
    assert network.familiarity is not None
    known = network.familiarity.known
    scores = score(network, own["test"].images[:], known)
    strangers = {name: score(network, pixels, known) for name, pixels in make_strangers(arguments.data_dir).items()}
    features = torch.cat([network.features(images.images[:]) for images in own.values()])
    logits = torch.cat([network.logits(images.images[:]) for images in own.values()])
    shares = np.array(keep_promise(features, logits, known))
    result = {
        "recipe": run.recipe.name,
        "seed": run.environment.seed,
        "test_accuracy": run.evaluation.splits["test"].accuracy.value,
        "auroc": {
            name: {kind: auroc(scores[kind], theirs[kind]) for kind in scores} for name, theirs in strangers.items()
        },
        "promise": {
            "answered": PROMISED,
            "trials": TRIALS,
            "within_a_point": int((np.abs(shares - PROMISED) <= 0.01).sum()),
            "mean": float(shares.mean()),
        },
    }
    write_record(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()
