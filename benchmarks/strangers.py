"""How well a network tells strange pictures from its own: AUROC by several scores, and how its promise is kept.

Near strangers are CIFAR-100's test images, far ones are digits, noise and stripes. The network has seen none of them.
The test images of the network's own classes are the familiar ones; nothing is chosen by them.

    python strangers.py RUN --data-dir DIR                      writes strangers.json
    python strangers.py FIT.safetensors --data-dir DIR          writes strangers-fit.json
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fit import draw
from numpy.typing import NDArray
from record import write_record
from torch import Tensor

from reslab import Network, Run, load
from reslab.data.recipe_data import read_split
from reslab.data.split import limit
from reslab.fitting.beside import cut
from reslab.machine import kernels
from reslab.network.familiarity import MOST, Familiarity, Neighbours, fit_familiarity
from reslab.network.inference import Stored
from reslab.network.texture import fit_texture
from reslab.records import SPLITS

NUM, TRIALS, PROMISED = 2000, 100, 0.95
PER_CLASS, HELD_OUT = 5000, 5000  # of all of CIFAR-10


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


class Seen(NamedTuple):
    """Features (N, D), logits (N, K) and statistics of the texture (N, P) of images."""

    features: Tensor
    logits: Tensor
    statistics: Tensor


@torch.inference_mode()
def look_at(network: Network, pixels: Stored) -> Seen:
    features = network.features(pixels)
    return Seen(features, network.module.head(features), network.texture(pixels))


def get_to_know(known: Seen, labels: Tensor, held_out: Seen) -> Familiarity:
    """Fit familiarity as `finish` does."""
    statistics = known.statistics, held_out.statistics
    found = fit_familiarity(known.features, labels, held_out.features, held_out.logits, statistics=statistics)
    assert found is not None
    return found


def measure(familiarity: Familiarity, seen: Seen) -> NDArray[np.float64]:
    """Compute the scores (S, N) that are summed."""
    assert familiarity.texture is not None
    scores = [familiarity.measure(seen.features, seen.logits), familiarity.texture.score(seen.statistics)[:, None]]
    return np.asarray(torch.cat(scores, dim=1).double().numpy().T)


@torch.inference_mode()
def score(seen: Seen, *, known: Tensor, familiarity: Familiarity) -> dict[str, NDArray[np.float64]]:
    """Give each image's scores: those that are summed, their sum, and others to compare with."""
    energy, length, distance, texture = measure(familiarity, seen)
    neighbours = Neighbours(torch.nn.functional.normalize(known, dim=1))
    near = neighbours(seen.features, seen.logits)[:, 0].double().numpy()
    return {
        "largest probability": seen.logits.double().softmax(dim=1).amax(dim=1).numpy(),
        "nearest training images": near,
        "energy": energy,
        "length of features": length,
        "relative Mahalanobis distance": distance,
        "texture": texture,
        "the sum of the last four": sum_up(familiarity, energy, length, distance, texture),
    }


def sum_up(familiarity: Familiarity, *scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack(scores, axis=1) @ (1 / familiarity.deviations.double().numpy())


@torch.inference_mode()
def keep_promise(own: Seen, known: Seen, labels: Tensor) -> list[float]:
    """Part held-out and test images anew in each trial; give the shares of the latter that are answered."""
    shares, num = [], min(5000, len(own.features) // 2)
    for seed in range(TRIALS):
        order = torch.randperm(len(own.features), generator=torch.Generator().manual_seed(seed))
        held, rest = (Seen(*(each[some] for each in own)) for some in (order[:num], order[num:]))
        familiarity = get_to_know(known, labels, held)
        limit = np.sort(sum_up(familiarity, *measure(familiarity, held)))[int((1 - PROMISED) * (num + 1)) - 1]
        shares.append(float((sum_up(familiarity, *measure(familiarity, rest)) >= limit).mean()))
    return shares


@torch.inference_mode()
def measure_weights(path: Path, *, data_dir: Path | None) -> dict[str, Any]:
    """Measure a network that fit.py made of all of CIFAR-10, with the texture of the images that it held out."""
    network = Network.load(path)
    kernels.enable(network.device)
    known = network.familiarity
    assert known is not None
    parts = cut(draw(load("cifar10", "train", data_dir=data_dir), num=PER_CLASS, seed=0), None, num=HELD_OUT)
    few = limit(parts.training.labels.numpy(), classes=network.classes, num=-(-MOST // len(network.classes)))
    held_out = network.texture(parts.held_out.images)
    texture = fit_texture(network.texture(parts.training.subset(few).images), held_out)
    scores = torch.cat([known.scores, texture.score(held_out)[:, None]], dim=1)
    familiarity = Familiarity(known.measure, scores, texture)

    def total(pixels: Stored) -> NDArray[np.float64]:
        return sum_up(familiarity, *measure(familiarity, look_at(network, pixels)))

    test = load("cifar10", "test", data_dir=data_dir)
    own = total(test.images[:])
    strangers = {name: total(pixels) for name, pixels in make_strangers(data_dir).items()}
    return {
        "network": network.metadata.model.label,
        "auroc": {name: auroc(own, theirs) for name, theirs in strangers.items()},
    }


def measure_run(run: Run, *, data_dir: Path | None) -> dict[str, Any]:
    """Measure a network by several scores, fitted to its run's held-out images."""
    network = Network.load(run.path)
    kernels.enable(network.device)
    train, *own = (read_split(run.recipe, split, data_dir=data_dir) for split in SPLITS)
    few = limit(train.labels.numpy(), classes=train.classes, num=-(-MOST // len(train.classes)))
    known, labels = look_at(network, train.images[few]), train.labels[few]
    held_out, test = (look_at(network, images.images[:]) for images in own)
    familiarity = get_to_know(known, labels, held_out)
    scores = score(test, known=known.features, familiarity=familiarity)
    strangers = {
        name: score(look_at(network, pixels), known=known.features, familiarity=familiarity)
        for name, pixels in make_strangers(data_dir).items()
    }
    both = Seen(*(torch.cat(parts) for parts in zip(held_out, test, strict=True)))
    shares = np.array(keep_promise(both, known, labels))
    return {
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    out = Path(__file__)
    if arguments.run.suffix == ".safetensors":
        write_record(out.with_name("strangers-fit.json"), measure_weights(arguments.run, data_dir=arguments.data_dir))
    else:
        write_record(out.with_suffix(".json"), measure_run(Run.open(arguments.run), data_dir=arguments.data_dir))


if __name__ == "__main__":
    main()
