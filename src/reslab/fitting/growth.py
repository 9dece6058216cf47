"""How accuracy grows with data: linear heads on ever larger parts of it, judged on images that they have not seen.

Axes: N images, M of them that are answered, D features, J sizes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from reslab.fitting.choice import FOLDS, Features, fit_temperature, log_loss
from reslab.measure.metrics import Floats
from reslab.pretrained.heads import STRENGTHS, Integers, solve

SIZES = 5  # of training sets, each half the next
FEWEST = 2  # images of a class
DRAWS, DRAWN_ONCE = 3, 200  # from so many images on, another draw tells little
MOST = 10_000  # images that are answered


class Growth(NamedTuple):
    """Training sets of `shares` (J,) of all images, and how often each image got the right answer from them (J, M).

    `labels` (M,) are those of the images that were answered.
    """

    shares: Floats
    right: Floats
    labels: Integers


def measure_growth(features: Features, labels: Integers, *, show: Callable[[int], None] = lambda done: None) -> Growth:
    """Solve heads on nested parts of the images (N, D), and answer the others out of folds.

    `show` is told how many answers there are.
    """
    num_images = len(labels)
    places = _part(labels, min(1.0, MOST / num_images), seed=0)
    features, labels = features[places], labels[places]
    counts = np.bincount(labels)
    folds = min(FOLDS, int(counts.min()))
    kept = 1 - 1 / folds
    num_sizes = int(np.clip(1 + np.log2(counts.mean() * kept / FEWEST), 1, SIZES))
    shares = 0.5 ** np.arange(num_sizes)[::-1]
    right, done = np.zeros((num_sizes, len(labels))), 0
    for place, share in enumerate(shares):
        draws = DRAWS if share * kept * len(labels) < DRAWN_ONCE else 1
        for draw in range(draws):
            right[place] += _answer(features, labels, share=float(share), folds=folds, seed=draw) / draws
            done += len(labels)
            show(done)
    return Growth(shares * kept * len(labels) / num_images, right, labels)


def _answer(features: Features, labels: Integers, *, share: float, folds: int, seed: int) -> NDArray[np.bool_]:
    """Answer each image by a head on a share of the other folds, the strength chosen as `fit` does; tell who is right.

    Smaller shares of one seed are among the larger ones.
    """
    strengths = STRENGTHS["lda"]
    logits = np.empty((len(strengths), len(labels), int(labels.max()) + 1))
    for kept, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, labels):
        some = kept[_part(labels[kept], share, seed=seed)]
        for place, head in enumerate(solve("lda", features[some], labels[some], strengths=strengths)):
            logits[place, held] = head.logits(features[held])
    best = min(logits, key=lambda each: log_loss(each / fit_temperature(each, labels), labels))
    return np.asarray(best.argmax(axis=1) == labels)


def _part(labels: Integers, share: float, *, seed: int) -> Integers:
    """Choose a share of each class, but two images at least."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in range(int(labels.max()) + 1):
        places = generator.permutation(np.flatnonzero(labels == label))
        chosen.append(places[: max(FEWEST, round(share * len(places)))])
    return np.sort(np.concatenate(chosen))
