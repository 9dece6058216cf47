"""The gallery: which images of a split are kept for the report, with their features, heat maps and doubtful labels.

Everything depends on the predictions and the weights alone: the same run always keeps the same images.
Axes: N images of the split, M chosen ones, K classes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.data.progress import waiting
from reslab.evaluation.doubts import find_doubts
from reslab.evaluation.heat import heat_maps
from reslab.measure.metrics import Integers, confident_mistakes, softmax
from reslab.network.inference import watching
from reslab.network.network import Network
from reslab.records import SplitName
from reslab.runs import Doubts, Features, GalleryImages, HeatMaps, Predictions, Run, drop_exhibit, write_exhibit
from reslab.runs.gallery import NUM_DOUBTS, ExhibitT

IMAGES_A_CELL, IMAGES_OF_CELLS = 10, 1000  # of a confusion matrix
NUM_FEATURES, NUM_HEAT_MAPS = 800, 12  # heat maps: this many for right and for wrong answers each
LARGEST = 64  # pixels a side


def write_gallery(run: Run, split: SplitName, *, network: Network, images: ImageSet, predictions: Predictions) -> None:
    """Keep images for every cell of the confusion matrix; for the test split also features, heat maps and doubts.

    Heat maps and doubts need reslab[report]; without it there are none.
    """
    chosen = [choose_cells(predictions)]
    if split == "test":
        sample = choose_sample(len(predictions.labels))
        with watching(images.subset(sample).images, "features of test images") as watched:
            features = network.features(watched)
        write_exhibit(run.path, split, Features(sample, features.numpy()))
        looked = np.concatenate(choose_looks(predictions))
        with waiting("heat maps of test images"):
            maps = heat_maps(network.module, network.prepare(images.subset(looked).images[:]))
        replace_exhibit(run, split, HeatMaps, None if maps is None else HeatMaps(looked[: len(maps)], maps))
        doubts = find_doubts(predictions)
        replace_exhibit(run, split, Doubts, doubts)
        chosen += [sample, looked, *([] if doubts is None else [doubts.indices[:NUM_DOUBTS]])]
    indices = np.unique(np.concatenate(chosen))
    write_exhibit(run.path, split, GalleryImages(indices, shrink(images.subset(indices).images[:]).numpy()))


def replace_exhibit(run: Run, split: SplitName, kind: type[ExhibitT], exhibit: ExhibitT | None) -> None:
    """Write a part of a split's gallery; for None, delete what an earlier evaluation left."""
    if exhibit is None:
        drop_exhibit(run.path, split, kind)
    else:
        write_exhibit(run.path, split, exhibit)


# ---- which images


def choose_cells(predictions: Predictions) -> Integers:
    """Choose some images (M,) for every cell of the confusion matrix, the most confident ones."""
    num_classes = predictions.logits.shape[1]
    cells = predictions.labels * num_classes + predictions.logits.argmax(axis=1)
    certainty = softmax(predictions.logits).max(axis=1)
    return choose_evenly(cells, certainty=certainty, each=IMAGES_A_CELL, most=IMAGES_OF_CELLS)


def choose_looks(predictions: Predictions) -> tuple[Integers, Integers]:
    """Choose right answers, from as many classes as possible, and the most confident wrong ones."""
    certainty, most = softmax(predictions.logits).max(axis=1), NUM_HEAT_MAPS
    right = np.flatnonzero(predictions.logits.argmax(axis=1) == predictions.labels)
    classes = np.unique(predictions.labels[right])
    num = min(most, len(classes))
    spread = classes[np.arange(num) * len(classes) // max(1, num)]  # every n-th if there are too many
    right = right[np.isin(predictions.labels[right], spread)]
    chosen = choose_evenly(predictions.labels[right], certainty=certainty[right], each=most, most=most)
    return right[chosen], confident_mistakes(predictions.logits, predictions.labels, limit=most)


def choose_evenly(groups: Integers, *, certainty: np.ndarray, each: int, most: int) -> Integers:
    """Choose the most confident of every group (N,), then the second of each, and so on; sorted by index.

    If there is no room for all groups, the largest come first, and among equal ones the most confident.
    """
    order = np.argsort(-certainty, kind="stable")
    by_group = order[np.argsort(groups[order], kind="stable")]
    sorted_groups = groups[by_group]
    rank = np.arange(len(by_group)) - np.searchsorted(sorted_groups, sorted_groups)
    size = np.bincount(sorted_groups)[sorted_groups]
    chosen = by_group[np.lexsort((-certainty[by_group], -size, rank))][: np.count_nonzero(rank < each)]
    return np.sort(chosen[:most])


def choose_sample(num_images: int, *, most: int = NUM_FEATURES) -> Integers:
    """Draw up to `most` images of a split; the same number of images always gives the same sample."""
    return np.sort(np.random.default_rng(0).permutation(num_images)[:most])


# ---- their size


def shrink(images: Tensor, *, largest: int = LARGEST) -> Tensor:
    """Shrink images (N, C, H, W) uint8 by averaging until no side exceeds `largest` pixels."""
    rows, columns = images.shape[2:]
    if max(rows, columns) <= largest:
        return images
    size = [max(1, round(side * largest / max(rows, columns))) for side in (rows, columns)]
    chunks = torch.split(images, 50)
    return torch.cat([F.interpolate(chunk.float(), size, mode="area").round().byte() for chunk in chunks])
