"""Learning curves: linear heads on ever larger parts of the data, judged on unseen images.

Axes: N images, M of them judged, D features, J sizes.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.data.folds import FOLDS, Folds, Keys, number_groups, split_folds
from reslab.fitting.choice import Features
from reslab.measure.calibration import fit_temperature_smoothed
from reslab.measure.metrics import Floats, log_loss
from reslab.pretrained.heads import STRENGTHS, Integers, solve

SIZES = 5  # training set sizes, each half the next
FEWEST = 2  # images of a class
DRAWS, DRAWN_ONCE = 3, 200  # random subsets of each size; only one from this many images on
MOST = 10_000  # images judged


class Growth(NamedTuple):
    """Sizes of training sets as `shares` (J,) of all images, and how often each image was classified correctly (J, M).

    `labels` (M,) are those of the judged images.
    """

    shares: Floats
    right: Floats
    labels: Integers


def measure_growth(
    features: Features,
    labels: Integers,
    *,
    keys: Keys | None = None,
    show: Callable[[int], None] = lambda done: None,
) -> Growth:
    """Solve heads on nested parts of the images (N, D), and judge them out of folds.

    Images of equal `keys` (N,) are a group: none is judged by a head that has seen another of them, and parts consist
    of whole groups where they can. `show` is called with the number of answers so far.
    """
    num_images = len(labels)
    groups = number_groups(keys, num=num_images)
    places = _part(labels, groups, min(1.0, MOST / num_images), seed=0, num_groups=FOLDS)
    features, labels, groups = features[places], labels[places], groups[places]
    keys = None if keys is None else keys[places]

    @cache
    def folds_of(draw: int) -> Folds:
        return split_folds(labels, keys, seed=draw)

    kept = 1 - 1 / len(folds_of(0))
    groups_per_class = np.mean([len(np.unique(groups[labels == label])) for label in range(int(labels.max()) + 1)])
    num_sizes = int(np.clip(1 + np.log2(groups_per_class * kept / FEWEST), 1, SIZES))
    shares = 0.5 ** np.arange(num_sizes)[::-1]
    right, done = np.zeros((num_sizes, len(labels))), 0
    for place, share in enumerate(shares):
        draws = DRAWS if share * kept * len(labels) < DRAWN_ONCE else 1
        for draw in range(draws):
            answered = _answer(features, labels, groups, share=float(share), folds=folds_of(draw), seed=draw)
            right[place] += answered / draws
            done += len(labels)
            show(done)
    return Growth(shares * kept * len(labels) / num_images, right, labels)


def _answer(
    features: Features, labels: Integers, groups: Integers, *, share: float, folds: Folds, seed: int
) -> NDArray[np.bool_]:
    """Return which images are classified correctly by a head on a share of the other folds, chosen as in `fit`.

    With the same seed, smaller shares are subsets of larger ones.
    """
    strengths = STRENGTHS["lda"]
    logits = np.empty((len(strengths), len(labels), int(labels.max()) + 1))
    for kept, held in folds:
        some = kept[_part(labels[kept], groups[kept], share, seed=seed)]
        for place, head in enumerate(solve("lda", features[some], labels[some], strengths=strengths)):
            logits[place, held] = head.logits(features[held])
    best = min(logits, key=lambda each: log_loss(each / fit_temperature_smoothed(each, labels), labels))
    return np.asarray(best.argmax(axis=1) == labels)


def _part(labels: Integers, groups: Integers, share: float, *, seed: int, num_groups: int = 1) -> Integers:
    """Choose a share of each class, but at least two images; group by group, and the same groups in every class.

    From a class with images of fewer than `num_groups` groups among these, images of all groups are chosen in turn.
    """
    generator = np.random.default_rng(seed)
    by_class = [generator.permutation(np.flatnonzero(labels == label)) for label in range(int(labels.max()) + 1)]
    shuffled = np.concatenate(by_class)
    _, first, numbers = np.unique(groups[shuffled], return_index=True, return_inverse=True)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[shuffled] = first[numbers]  # where the group of each image first appears
    chosen = []
    for in_order in by_class:
        places = in_order[np.argsort(rank[in_order], kind="stable")]
        num = max(FEWEST, num_groups, round(share * len(places)))
        if len(np.unique(groups[places[:num]])) < num_groups:
            places = places[np.argsort(_number_within(groups[places]), kind="stable")]
        chosen.append(places[:num])
    return np.sort(np.concatenate(chosen))


def _number_within(groups: Integers) -> Integers:
    """Number the images of each group (N,) from 0 on."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    numbers = np.empty(len(groups), dtype=np.int64)
    numbers[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
    return numbers
