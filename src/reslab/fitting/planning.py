"""How accurate would a classifier be with more pictures, and which ones are worth labelling?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reslab.data.answers import Unread, find_pictures, read_sound
from reslab.data.frames import to_expression
from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.data.progress import counting
from reslab.data.recipe_data import read_split
from reslab.data.sizes import find_image_size
from reslab.errors import UserError
from reslab.fitting.choice import Features, check_counts
from reslab.fitting.growth import DRAWS, MOST, SIZES, Growth, measure_growth
from reslab.fitting.labelling import order_pictures
from reslab.measure.learning_curve import extrapolate
from reslab.pretrained import Pictures, Pretrained
from reslab.recipe.networks import EfficientNetLite
from reslab.recipe.shapes import Resizing
from reslab.records import Estimate
from reslab.runs import Run
from reslab.words import listing, points

if TYPE_CHECKING:
    import pandas

__all__ = ["ClassGrowth", "Plan", "plan"]

TIMES = (1, 2, 4)  # the data
NETWORK, IMAGE_SIZE, LARGEST_STORED = "efficientnet_lite0", 128, 192  # pixels a side
FEWEST = 5  # images a class on average
NAMED = 3  # classes
CANDIDATES, ORDERED = 4000, 500  # pictures
LEAST_GAIN = 0.0005  # in accuracy; less would be shown as 0.0 points
BLOCK = 1024  # pictures whose features are computed between two words about it


@dataclass(frozen=True)
class ClassGrowth:
    """The accuracy on a class, or on all, with so much data as there is, with twice and with four times of it."""

    name: str
    num_images: int
    accuracy: tuple[Estimate, Estimate, Estimate]


@dataclass(frozen=True)
class Plan:
    """What more pictures would bring, and files in the order in which they are worth labelling."""

    expression: str
    network: str
    all: ClassGrowth
    classes: tuple[ClassGrowth, ...]
    order: tuple[str, ...] = ()
    num_unlabelled: int = 0
    unread: tuple[Unread, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say what more pictures would bring, and which classes gain most by them."""
        now, _, four_times = self.all.accuracy
        gain = four_times.value - now.value
        if gain < LEAST_GAIN:
            return ("Four times the pictures would bring next to nothing.",)
        gains = {each.name: each.accuracy[-1].value - each.accuracy[0].value for each in self.classes}
        best = sorted(gains, key=lambda name: -gains[name])[:NAMED]
        return (
            f"Four times the pictures would bring {points(gain, decimals=1)} points.",
            f"Most for {listing(best)}.",
        )


def plan(
    data: "str | pandas.DataFrame",
    *,
    unlabelled: Sequence[Path] = (),
    data_dir: Path | None = None,
    allow_remote: bool = False,
) -> Plan:
    """Tell how accurate a classifier would be with twice and with four times the pictures.

    Linear heads are solved on features of a network that was trained on ImageNet, as `fit` does, with ever larger parts
    of the training images, and judged on others. A curve through these accuracies is extended.

    Parameters
    ----------
    data : str or pandas.DataFrame
        A data expression, a DataFrame as `fit` takes it, or the path of a run folder: then the images that the run is
        trained on.
    unlabelled : sequence of Path
        Pictures, or folders of them, to put in the order in which they are worth labelling.
    data_dir : Path, optional
        Where downloaded data lies, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether another machine that a run's recipe names may be contacted.

    Returns
    -------
    Plan
        `all` and each of `classes` with three accuracies in [0, 1], now, at twice and at four times the data, each with
        its 90 % interval; and the first 500 unlabelled pictures in their order.

    Raises
    ------
    UserError
        Where reslab[pretrained] is missing, or there are fewer than five images a class.

    Examples
    --------
    >>> import reslab
    >>> found = reslab.plan("digits:1,4,7@20")
    >>> now, twice, four_times = found.all.accuracy
    >>> now.value <= four_times.value, four_times.low < four_times.high
    (True, True)
    """
    data = to_expression(data, data_dir=data_dir)
    images, network, resize = _read(data, data_dir=data_dir, allow_remote=allow_remote)
    check_counts(images)
    labels = images.labels.numpy()
    if len(labels) < FEWEST * len(images.classes):
        raise UserError(
            f"{data} has {len(labels)} training images of {len(images.classes)} classes, too few for a learning curve: "
            f"add pictures, up to {FEWEST} a class at least"
        )
    features = _compute(network, images.images, what="features")
    with counting("learning curve", total=DRAWS * SIZES * min(len(labels), MOST)) as show:
        growth = measure_growth(features, labels, show=show)
    found = _describe(images, growth, network=f"{network.name} at {network.image_size} pixels")
    if not unlabelled:
        return found
    files = find_pictures(unlabelled)
    chosen = np.sort(np.random.default_rng(0).permutation(len(files))[:CANDIDATES])
    channels, image_size = images.images.shape[1:3]
    sound, pixels, unread = read_sound(
        [files[place] for place in chosen], image_size=image_size, channels=channels, resize=resize, what="unlabelled"
    )
    theirs = _compute(network, pixels, what="unlabelled")
    with counting("order", total=min(ORDERED, len(sound))) as show:
        order = order_pictures(features, labels, theirs, num=ORDERED, show=show)
    return replace(
        found, order=tuple(str(sound[place]) for place in order), num_unlabelled=len(files), unread=tuple(unread)
    )


def _read(data: str, *, data_dir: Path | None, allow_remote: bool) -> tuple[ImageSet, Pretrained, Resizing]:
    """Read the training images of a run or an expression, and choose the network whose features are taken of them."""
    if (Path(data) / "recipe.json").is_file():
        recipe = Run.open(data).recipe
        images = read_split(recipe, "train", data_dir=data_dir, allow_remote=allow_remote)
        own = recipe.model.resize if isinstance(recipe.model, EfficientNetLite) else None
        return images, Pretrained(recipe.pretrained or NETWORK, image_size=own or IMAGE_SIZE), recipe.resize
    size = find_image_size(data, largest=LARGEST_STORED, data_dir=data_dir)
    images = load(data, "train", data_dir=data_dir, image_size=size)
    return images, Pretrained(NETWORK, image_size=IMAGE_SIZE), "squeeze"


def _compute(network: Pretrained, images: Pictures, *, what: str) -> Features:
    """Compute the features of images, and tell how far it is."""
    found = []
    with counting(what, total=len(images)) as show:
        for start in range(0, len(images), BLOCK):
            found.append(network.features(images[start : start + BLOCK]))
            show(start + len(found[-1]))
    return np.concatenate(found)


def _describe(images: ImageSet, growth: Growth, *, network: str) -> Plan:
    """Extend the curves, that of all images and that of each class."""

    def extend(name: str, count: int, among: NDArray[np.bool_]) -> ClassGrowth:
        now, twice, four_times = extrapolate(growth.shares, growth.right[:, among], to=TIMES)
        return ClassGrowth(name, count, (now, twice, four_times))

    classes = [
        extend(name, count, growth.labels == label)
        for label, (name, count) in enumerate(zip(images.classes, images.counts(), strict=True))
    ]
    everything = extend("all", len(images.labels), np.ones(len(growth.labels), dtype=bool))
    return Plan(images.expression, network, everything, tuple(classes))
