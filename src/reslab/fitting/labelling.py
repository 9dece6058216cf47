"""Which pictures to label next: those that make a linear head surest about all the others.

Each picture in turn takes most away from the variance that a ridge regression on features still has at the pictures
without a label, where it counts more the less sure the head is of a class. Doubtful pictures come early if others are
like them; outliers and near copies of what is labelled come late.

Source: Yu, Bi and Tresp 2006, "Active Learning via Transductive Experimental Design" (ICML), its sequential form.
Differs from it: pictures are weighted by the Gini impurity of what the head says of them.
Axes: N labelled and P unlabelled pictures, D features, K classes.
"""

from collections.abc import Callable

import numpy as np
from sklearn.preprocessing import normalize

from reslab.fitting.choice import Features, fit_temperature, split_folds
from reslab.measure.metrics import Floats, softmax
from reslab.pretrained.heads import Integers, solve

RIDGE = 0.05
STRENGTH = 0.4  # of the head: in the middle of those that `fit` tries


def order_pictures(
    labelled: Features,
    labels: Integers,
    unlabelled: Features,
    *,
    num: int,
    show: Callable[[int], None] = lambda done: None,
) -> Integers:
    """Give the places of the `num` pictures (P, D) that are worth labelling first, best first."""
    weights = 1 - (_say(labelled, labels, unlabelled) ** 2).sum(axis=1)
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


def _say(labelled: Features, labels: Integers, unlabelled: Features) -> Floats:
    """Give the probabilities (P, K) by a head on the labelled pictures, its temperature found out of folds."""
    logits = np.empty((len(labels), int(labels.max()) + 1))
    for kept, held in split_folds(labels):
        (head,) = solve("lda", labelled[kept], labels[kept], strengths=(STRENGTH,))
        logits[held] = head.logits(labelled[held])
    (head,) = solve("lda", labelled, labels, strengths=(STRENGTH,))
    return softmax(head.logits(unlabelled) / fit_temperature(logits, labels))


def _covary(labelled: Features, unlabelled: Features) -> Floats:
    """Give the covariance (P, P) of a ridge regression's answers, once the labelled pictures are known."""
    centre = labelled.mean(axis=0)
    known, new = (normalize((each - centre).astype(np.float64)) for each in (labelled, unlabelled))
    precision = known.T @ known + RIDGE * np.eye(known.shape[1])
    return np.asarray(RIDGE * new @ np.linalg.solve(precision, new.T))
