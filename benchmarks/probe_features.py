"""How far a few pictures go with features of ImageNet: EfficientNet-Lite0 frozen, a linear head, CIFAR-10's classes.

Three draws of 10, 20 and 50 training images a class. A head's one setting (the inverse penalty C of the logistic
regression, the shrinkage of the discriminant analysis) is chosen by three folds of the drawn images alone; accuracies
are on 5,000 held-out images of the training split. The test split is not read. Accuracies are in percent.

    python benchmarks/probe_features.py          writes benchmarks/probe_features.json
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import write_record
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from reslab.data.load import load
from reslab.data.split import hold_out
from reslab.pretrained import Pretrained

NAME, IMAGE_SIZE = "efficientnet_lite0", 128
PER_CLASS, DRAWS, FOLDS, HELD_OUT = (10, 20, 50), 3, 3, 5000

Features = NDArray[np.float64]
Labels = NDArray[np.int64]
Fit = Callable[[Features, Labels, Features], Sequence[Labels]]  # the answers on the last, one for each setting

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
SHRINKAGES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def logistic(features: Features, labels: Labels, others: Features) -> list[Labels]:
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    answers = []
    for penalty in PENALTIES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=penalty, max_iter=200).fit((features - mean) / deviation, labels)
        answers.append(model.predict((others - mean) / deviation))
    return answers


def discriminant(features: Features, labels: Labels, others: Features) -> list[Labels]:
    """Linear discriminant analysis with the covariance drawn to a multiple of the identity; one SVD for all amounts."""
    means = np.stack([features[labels == label].mean(0) for label in np.unique(labels)])
    _, singular, axes = np.linalg.svd((features - means[labels]) / np.sqrt(len(labels)), full_matrices=False)
    variances = singular**2
    level = variances.sum() / features.shape[1]
    answers = []
    for amount in SHRINKAGES:
        inside = 1 / ((1 - amount) * variances + amount * level)
        outside = 1 / (amount * level)
        weight = means * outside + (means @ axes.T * (inside - outside)) @ axes
        answers.append((others @ weight.T - (means * weight).sum(1) / 2).argmax(1))
    return answers


HEADS: dict[str, tuple[Fit, tuple[float, ...]]] = {
    "logistic regression": (logistic, PENALTIES),
    "shrunken LDA": (discriminant, SHRINKAGES),
}


def choose(fit: Fit, features: Features, labels: Labels) -> int:
    """Choose a setting by the accuracy out of folds."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, labels)
    right = [
        [float((answer == labels[held]).sum()) for answer in fit(features[kept], labels[kept], features[held])]
        for kept, held in folds
    ]
    return int(np.sum(right, axis=0).argmax())


def draw(labels: Labels, *, seed: int) -> NDArray[np.int64]:
    """Shuffle the places of images, a class at a time: (K, N of a class)."""
    generator = np.random.default_rng(seed)
    return np.stack(
        [generator.permutation(np.flatnonzero(labels == label))[: max(PER_CLASS)] for label in np.unique(labels)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept, held = hold_out(load("cifar10", "train"), HELD_OUT, seed=0)
    network = Pretrained(NAME, image_size=IMAGE_SIZE)
    began = time.process_time()
    validation = network.features(held.images).astype(np.float64)
    seconds = {f"features of {HELD_OUT:,} images": round(time.process_time() - began, 1)}
    truth, kept_labels = held.labels.numpy(), kept.labels.numpy()
    found: dict[str, dict[str, Any]] = {name: {} for name in HEADS}
    for seed in range(DRAWS):
        places = draw(kept_labels, seed=seed)
        for num in PER_CLASS:
            chosen = places[:, :num].reshape(-1)
            features = network.features(kept.images[torch.from_numpy(chosen)]).astype(np.float64)
            labels = kept_labels[chosen]
            for name, (fit, settings) in HEADS.items():
                best = choose(fit, features, labels)
                accuracy = 100 * float((fit(features, labels, validation)[best] == truth).mean())
                row = found[name].setdefault(f"{num} a class", {"draws": [], "settings": []})
                row["draws"].append(round(accuracy, 2))
                row["settings"].append(settings[best])
    for rows in found.values():
        for row in rows.values():
            row["mean"] = round(fmean(row["draws"]), 2)
    seconds["everything"] = round(time.process_time() - began, 1)
    facts = {"network": NAME, "image_size": IMAGE_SIZE, "route": network.route, "validation_images": HELD_OUT}
    write_record(options.out, {**facts, "processor_seconds": seconds, "accuracy": found})


if __name__ == "__main__":
    main()
