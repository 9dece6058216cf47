"""Estimate how accurate a classifier would be with more pictures, and which pictures to label."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reslab.data.answers import Unread, find_pictures, read_sound
from reslab.data.check.problems import SplitReading, naming_all_problems
from reslab.data.frames import to_expression
from reslab.data.images import ImageSet
from reslab.data.load import list_files, load
from reslab.data.progress import counting
from reslab.data.recipe_data import describe_change, read_split_of
from reslab.data.sources.listing import digest_files, keys_of
from reslab.errors import UserError
from reslab.fitting.choice import Features, check_counts, find_stored_form
from reslab.fitting.growth import DRAWS, MOST, SIZES, Growth, measure_growth
from reslab.fitting.labelling import order_pictures
from reslab.measure.learning_curve import extrapolate
from reslab.pretrained import Pictures, Pretrained
from reslab.recipe.networks import EfficientNetLite, Fusion
from reslab.recipe.recipe import Recipe
from reslab.recipe.shapes import Resizing
from reslab.records import Estimate
from reslab.runs import Run
from reslab.words import listing, points

if TYPE_CHECKING:
    import pandas

__all__ = ["ClassGrowth", "Plan", "plan"]

TIMES = (1, 2, 4)  # amounts of data
NETWORK, IMAGE_SIZE = "efficientnet_lite0", 128  # pixels a side
FEWEST = 5  # images per class on average
NAMED = 3  # classes named in a sentence
CANDIDATES, ORDERED = 4000, 500  # pictures
LEAST_GAIN = 0.0005  # in accuracy; less would be shown as 0.0 points
BLOCK = 1024  # pictures between two updates of the progress


@dataclass(frozen=True)
class ClassGrowth:
    """The accuracy on a class, or on all classes, with the present data, twice and four times as much."""

    name: str
    num_images: int
    accuracy: tuple[Estimate, Estimate, Estimate]


@dataclass(frozen=True)
class Plan:
    """What more pictures would bring, and files in the order in which to label them."""

    expression: str
    network: str
    all: ClassGrowth
    classes: tuple[ClassGrowth, ...]
    order: tuple[str, ...] = ()
    num_unlabelled: int = 0
    num_labelled: int = 0
    unread: tuple[Unread, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """Describe what more pictures would bring, and which classes would gain most."""
        now, _, four_times = self.all.accuracy
        gain = four_times.value - now.value
        if gain < LEAST_GAIN:
            return ("Four times the pictures would bring almost nothing.",)
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
    """Estimate how accurate a classifier would be with twice and with four times the pictures.

    As in `fit`, linear heads are solved on features of a network trained on ImageNet. They use ever larger parts of the
    training images and are judged on others; the curve of their accuracies is extrapolated.

    Parameters
    ----------
    data : str or pandas.DataFrame
        A data expression, a DataFrame as for `fit`, or the path of a run folder, which stands for the images that the
        run was trained on.
    unlabelled : sequence of Path
        Pictures, or folders of them, to rank by how much labelling them would help. Copies of labelled files are left
        out.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether to allow contacting other machines named in a run's recipe.

    Returns
    -------
    Plan
        `all` and each of `classes` with three accuracies in [0, 1], now, at twice and at four times the data, each with
        its 90 % interval; the first 500 unlabelled pictures in their order; and how many pictures are labelled already.

    Raises
    ------
    UserError
        If reslab[pretrained] is missing, there are fewer than five images per class, a run's images have changed, or
        all pictures to rank are labelled already.

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
    given = find_pictures(unlabelled)
    files = _leave_out_labelled(given, images.expression, data_dir=data_dir) if given else []
    features = _compute(network, images.images, what="features")
    with counting("learning curve", total=DRAWS * SIZES * min(len(labels), MOST)) as show:
        growth = measure_growth(features, labels, keys=images.keys, show=show)
    found = _describe(images, growth, network=f"{network.name} at {network.image_size} pixels")
    if not files:
        return found
    chosen = np.sort(np.random.default_rng(0).permutation(len(files))[:CANDIDATES])
    channels, image_size = images.images.shape[1:3]
    sound, pixels, unread = read_sound(
        [files[place] for place in chosen],
        image_size=image_size,
        channels=channels,
        resize=resize,
        white=images.white,
        what="unlabelled",
    )
    theirs = _compute(network, pixels, what="unlabelled")
    with counting("order", total=min(ORDERED, len(sound))) as show:
        order = order_pictures(features, labels, theirs, num=ORDERED, keys=images.keys, show=show)

    return replace(
        found,
        order=tuple(str(sound[place]) for place in order),
        num_unlabelled=len(files),
        num_labelled=len(given) - len(files),
        unread=tuple(unread),
    )


def _read(data: str, *, data_dir: Path | None, allow_remote: bool) -> tuple[ImageSet, Pretrained, Resizing]:
    """Read the training images of a run or an expression, and choose the network that computes their features."""
    if Run.is_at(data):
        run = Run.open(data)
        recipe = run.recipe
        images = read_split_of(run, "train", data_dir=data_dir, allow_remote=allow_remote)
        if change := describe_change(images, recorded=run.environment.data):
            raise UserError(f"{change} since {run.path} was trained: train it again, or plan {images.expression!r}")
        return images, _find_network(recipe), recipe.resize
    find_form = partial(find_stored_form, data_dir=data_dir)
    with naming_all_problems(data, SplitReading(("train",), find_form, data_dir=data_dir)):
        images = load(data, "train", **find_form(data)._asdict(), data_dir=data_dir)
    return images, Pretrained(NETWORK, image_size=IMAGE_SIZE), "squeeze"


def _find_network(recipe: Recipe) -> Pretrained:
    """Return the pretrained network of a recipe at its image size, or the default one if it has none."""
    model = recipe.model.pretrained if isinstance(recipe.model, Fusion) else recipe.model
    has_own = recipe.pretrained is not None or isinstance(recipe.model, Fusion)
    if not has_own or not isinstance(model, EfficientNetLite):
        return Pretrained(NETWORK, image_size=IMAGE_SIZE)
    return Pretrained(model.label, image_size=model.resize or recipe.image_size)


def _leave_out_labelled(files: Sequence[Path], expression: str, *, data_dir: Path | None) -> list[Path]:
    """Leave out files with the same bytes as a labelled picture of any split. Raises: UserError if none is left."""
    listings = [listing for _, listing in list_files(expression, data_dir=data_dir)]
    sizes = {file.stat().st_size for listing in listings for file in listing.files}
    alike = [file for file in files if file.is_file() and file.stat().st_size in sizes]
    if not alike:
        return list(files)
    labelled = np.concatenate([keys_of(listing.digests()) for listing in listings])
    are_copies = np.isin(keys_of(digest_files(alike, origin="unlabelled")), labelled)
    copies = {file for file, is_copy in zip(alike, are_copies, strict=True) if is_copy}
    new = [file for file in files if file not in copies]
    if not new:
        raise UserError(f"all pictures of --unlabelled are labelled already in {expression}: give others")
    return new


def _compute(network: Pretrained, images: Pictures, *, what: str) -> Features:
    """Compute the features of images, showing progress."""
    found = []
    with counting(what, total=len(images)) as show:
        for start in range(0, len(images), BLOCK):
            found.append(network.features(images[start : start + BLOCK]))
            show(start + len(found[-1]))
    return np.concatenate(found)


def _describe(images: ImageSet, growth: Growth, *, network: str) -> Plan:
    """Extrapolate the learning curves of all images and of each class."""

    def extend(name: str, count: int, among: NDArray[np.bool_]) -> ClassGrowth:
        now, twice, four_times = extrapolate(growth.shares, growth.right[:, among], to=TIMES)
        return ClassGrowth(name, count, (now, twice, four_times))

    classes = [
        extend(name, count, growth.labels == label)
        for label, (name, count) in enumerate(zip(images.classes, images.counts(), strict=True))
    ]
    everything = extend("all", len(images.labels), np.ones(len(growth.labels), dtype=bool))
    return Plan(images.expression, network, everything, tuple(classes))
