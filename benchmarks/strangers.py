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
from reslab.data.images import ImageSet
from reslab.data.recipe_data import read_split
from reslab.data.split import limit
from reslab.fitting.beside import cut
from reslab.machine import kernels
from reslab.network.familiarity import MOST, Familiarity, Neighbours, fit_familiarity
from reslab.network.inference import Stored
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


class Labelled(NamedTuple):
    """What is seen of images, and their labels (N,)."""

    seen: Seen
    labels: Tensor


@torch.inference_mode()
def look_at(network: Network, pixels: Stored) -> Seen:
    features = network.features(pixels)
    return Seen(features, network.module.head(features), network.texture(pixels))


def look_at_labelled(network: Network, images: ImageSet) -> Labelled:
    return Labelled(look_at(network, images.images[:]), images.labels)


def look_at_few(network: Network, images: ImageSet) -> Labelled:
    """Look at as many training images as familiarity compares with."""
    few = limit(images.labels.numpy(), classes=images.classes, num=-(-MOST // len(images.classes)))
    return look_at_labelled(network, images.subset(few))


def get_to_know(known: Labelled, held_out: Labelled) -> Familiarity:
    """Fit familiarity as `finish` does."""
    (features, _, texture), (own, logits, statistics) = known.seen, held_out.seen
    found = fit_familiarity(features, known.labels, own, logits, statistics=(texture, statistics))
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
    return familiarity.sum_up(torch.from_numpy(np.stack(scores, axis=1))).numpy()


@torch.inference_mode()
def keep_promise(own: Labelled, known: Labelled) -> list[float]:
    """Part held-out and test images anew in each trial; give the shares of the latter that are answered."""
    shares, num = [], min(5000, len(own.labels) // 2)
    for seed in range(TRIALS):
        order = torch.randperm(len(own.labels), generator=torch.Generator().manual_seed(seed))
        held, rest = (
            Labelled(Seen(*(each[some] for each in own.seen)), own.labels[some]) for some in (order[:num], order[num:])
        )
        familiarity = get_to_know(known, held)
        least = np.sort(sum_up(familiarity, *measure(familiarity, held.seen)))[int((1 - PROMISED) * (num + 1)) - 1]
        shares.append(float((sum_up(familiarity, *measure(familiarity, rest.seen)) >= least).mean()))
    return shares


@torch.inference_mode()
def measure_weights(path: Path, *, data_dir: Path | None) -> dict[str, Any]:
    """Measure a network that fit.py made of all of CIFAR-10, with the images that it held out."""
    network = Network.load(path)
    kernels.enable(network.device)
    parts = cut(draw(load("cifar10", "train", data_dir=data_dir), num=PER_CLASS, seed=0), None, num=HELD_OUT)
    familiarity = get_to_know(look_at_few(network, parts.training), look_at_labelled(network, parts.held_out))

    def total(pixels: Stored) -> NDArray[np.float64]:
        return sum_up(familiarity, *measure(familiarity, look_at(network, pixels)))

    own = total(load("cifar10", "test", data_dir=data_dir).images[:])
    return {
        "network": network.metadata.model.label,
        "auroc": {name: auroc(own, total(pixels)) for name, pixels in make_strangers(data_dir).items()},
    }


def measure_run(run: Run, *, data_dir: Path | None) -> dict[str, Any]:
    """Measure a network by several scores, fitted to its run's held-out images."""
    network = Network.load(run.path)
    kernels.enable(network.device)
    train, *own = (read_split(run.recipe, split, data_dir=data_dir) for split in SPLITS)
    known = look_at_few(network, train)
    held_out, test = (look_at_labelled(network, images) for images in own)
    familiarity = get_to_know(known, held_out)
    scores = score(test.seen, known=known.seen.features, familiarity=familiarity)
    strangers = {
        name: score(look_at(network, pixels), known=known.seen.features, familiarity=familiarity)
        for name, pixels in make_strangers(data_dir).items()
    }
    both = Seen(*(torch.cat(parts) for parts in zip(held_out.seen, test.seen, strict=True)))
    shares = np.array(keep_promise(Labelled(both, torch.cat([held_out.labels, test.labels])), known))
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
