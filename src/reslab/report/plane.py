"""Features in two dimensions, to see which classes lie next to each other.

Source: t-SNE, van der Maaten and Hinton 2008, as scikit-learn computes it from the first principal components.
Axes: M images, D features.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

PRINCIPAL = 30  # components that t-SNE starts from
TOO_FEW = 30  # images; with fewer, the first two principal components are shown
NO_SPREAD = 1e-18  # t-SNE squares differences in single precision and divides by the result, which must not become 0


def to_plane(features: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], str]:
    """Project features (M, D) into a plane (M, 2); return the points and the method's name."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = features.astype(np.float64)
    num, dimensions = features.shape
    if np.ptp(features, axis=0).max() < NO_SPREAD:
        return np.zeros((num, 2)), "principal components"
    principal = PCA(min(PRINCIPAL, num, dimensions), random_state=0).fit_transform(features)
    if num < TOO_FEW or principal.shape[1] < 2:
        points = np.zeros((num, 2))
        points[:, : principal.shape[1]] = principal[:, :2]
        return points, "principal components"
    perplexity = min(30.0, (num - 1) / 3)
    placed = TSNE(2, init="pca", perplexity=perplexity, random_state=0, n_jobs=1).fit_transform(principal)
    return placed.astype(np.float64), "t-SNE"
