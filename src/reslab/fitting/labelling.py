"""Active learning: choose the pictures to label next that make a linear head most certain about all others.

Pictures are chosen one by one. Each reduces the variance of a ridge regression on features at the unlabelled pictures
as much as possible, weighting pictures more the less certain the head is of their class. Uncertain pictures come early
if others are like them; outliers and near copies of labelled pictures come late.

Source: Yu, Bi and Tresp 2006, "Active Learning via Transductive Experimental Design" (ICML), its sequential form.
Differs from it: pictures are weighted by the Gini impurity of the head's probabilities.
Axes: N labelled and P unlabelled pictures, D features, K classes.
"""

from collections.abc import Callable

import numpy as np
from sklearn.preprocessing import normalize

from reslab.data.folds import Keys, split_folds
from reslab.fitting.choice import Features
from reslab.measure.calibration import fit_temperature_smoothed
from reslab.measure.metrics import Floats, softmax
from reslab.pretrained.heads import Integers, solve

RIDGE = 0.05
STRENGTH = 0.4  # shrinkage of the head: the middle of those that `fit` tries


def order_pictures(
    labelled: Features,
    labels: Integers,
    unlabelled: Features,
    *,
    num: int,
    keys: Keys | None = None,
    show: Callable[[int], None] = lambda done: None,
) -> Integers:
    """Return the indices of the `num` pictures of (P, D) that are most worth labelling, best first.

    Labelled pictures of equal `keys` (N,) are a group.
    """
    weights = 1 - (_say(labelled, labels, keys, unlabelled) ** 2).sum(axis=1)
    variance = _covary(labelled, unlabelled)
    chosen: list[int] = []
    for _ in range(min(num, len(unlabelled))):
        own = variance.diagonal()
        gain = weights @ variance**2 / (own + RIDGE)
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        variance -= np.outer(variance[best], variance[best]) / (own[best] + RIDGE)
        show(len(chosen))
    return np.array(chosen)


def _say(labelled: Features, labels: Integers, keys: Keys | None, unlabelled: Features) -> Floats:
    """Compute probabilities (P, K) with a head on the labelled pictures, calibrated out of folds."""
    logits = np.empty((len(labels), int(labels.max()) + 1))
    for kept, held in split_folds(labels, keys):
        (head,) = solve("lda", labelled[kept], labels[kept], strengths=(STRENGTH,))
        logits[held] = head.logits(labelled[held])
    (head,) = solve("lda", labelled, labels, strengths=(STRENGTH,))
    return softmax(head.logits(unlabelled) / fit_temperature_smoothed(logits, labels))


def _covary(labelled: Features, unlabelled: Features) -> Floats:
    """Return the posterior covariance (P, P) of a ridge regression's predictions, given the labelled pictures."""
    centre = labelled.mean(axis=0)
    known, new = (normalize((each - centre).astype(np.float64)) for each in (labelled, unlabelled))
    precision = known.T @ known + RIDGE * np.eye(known.shape[1])
    return np.asarray(RIDGE * new @ np.linalg.solve(precision, new.T))
