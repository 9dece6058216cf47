"""Labels that look wrong, by confident learning.

Source: Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", arXiv:1911.00068, as
cleanlab computes it. It needs predictions of images that training never saw, so it is used for the test split only.
"""

import numpy as np

from reslab.errors import without_widgets
from reslab.measure.metrics import softmax
from reslab.runs import Doubts, Predictions
from reslab.runs.gallery import GOOD_ENOUGH


def find_doubts(predictions: Predictions) -> Doubts | None:
    """Find the labels that confident learning considers wrong, the least credible first.

    They are at most about half of those that the network disagrees with: if more were wrong, the labels would be worse
    than the network. A network that is not accurate enough doubts none. None if cleanlab is not installed, a class has
    no image, or there is only one class.
    """
    try:
        with without_widgets():
            from cleanlab.filter import find_label_issues
    except ModuleNotFoundError:
        return None
    logits, labels = predictions
    if len(np.unique(labels)) < max(2, logits.shape[1]):
        return None
    wrong = logits.argmax(axis=1) != labels
    if 1 - wrong.mean() < GOOD_ENOUGH:
        return Doubts(np.empty(0, np.int64), np.empty(0, np.float32))
    probabilities = softmax(logits).astype(np.float64)
    ranked = find_label_issues(
        labels,
        probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    indices = np.asarray(ranked, np.int64)[: _most_faults(int(wrong.sum()))]
    return Doubts(indices, probabilities[indices, labels[indices]].astype(np.float32))


def _most_faults(disagreements: int) -> int:
    """Bound the disagreements that are the label's fault: half of them, plus two standard deviations for chance."""
    return int(disagreements / 2 + disagreements**0.5)
