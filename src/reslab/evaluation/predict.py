"""Write a run's predictions: the only stage that opens the test split."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reslab.data.check.duplicates import SIDE
from reslab.data.check.series import find_in_series
from reslab.data.expression import restore_limits
from reslab.data.images import ImageSet
from reslab.data.recipe_data import describe_change, describe_data, read_split, read_split_of, recipe_here
from reslab.errors import UserError
from reslab.evaluation.copies import find_copies
from reslab.evaluation.gallery import replace_exhibit, shrink, write_gallery
from reslab.machine import kernels
from reslab.measure.metrics import confident_mistakes
from reslab.network.inference import Stored, watching
from reslab.network.network import Network
from reslab.recipe.recipe import Extension, Recipe
from reslab.records import SplitName
from reslab.runs import Copies, Examples, Familiarities, InSeries, Predictions, Run
from reslab.training.seen import describe_earlier, leave_out_seen

LARGEST_EXAMPLE = 96  # pixels a side, as large as the report shows it


def predict(
    run: Run,
    *,
    splits: Sequence[SplitName],
    views: int | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
) -> None:
    """Write the predictions of the named splits, the gallery, and the misclassified test images.

    With `views`, predictions with test-time augmentation over this many views are written as well. For an extended run,
    the base also predicts the test images of its own classes, always without test-time augmentation.
    Raises: UserError if the run is not finished or its data has changed.
    """
    network = Network.load(run.path, device=device)
    kernels.enable(network.device)
    for split in splits:
        images = read_split_of(run, split, data_dir=data_dir, allow_remote=allow_remote)
        _check_fit(run, network, images)
        _record_data(run, images)
        if split == "validation":
            images = _leave_out_seen(run, images)
        predictions, familiarities = _answer_split(network, images)
        run.write_predictions(split, predictions, names=images.names)
        replace_exhibit(run, split, Familiarities, familiarities)
        if views is not None:
            run.write_predictions(split, _predict_split(network, images, views=views), augmented=True)
        write_gallery(run, split, network=network, images=images, predictions=run.read_predictions(split))
        if split == "test":
            _write_examples(run, images)
            copies, series = _compare_with_training(run, images, data_dir=data_dir, allow_remote=allow_remote)
            replace_exhibit(run, split, Copies, copies)
            replace_exhibit(run, split, InSeries, series)
            if run.recipe.extension is not None:
                _predict_with_base(run, run.recipe.extension, images, device=device)


def _leave_out_seen(run: Run, held_out: ImageSet) -> ImageSet:
    """Return the held-out images that nothing a run started from has learned from. Raises: UserError if none."""
    unseen = leave_out_seen(held_out, run)
    if unseen is None:
        earlier = describe_earlier(run)
        raise UserError(
            f"{earlier}, from which {run.path} started, has learned from the held-out images: evaluate train and test"
        )
    return unseen


def _compare_with_training(
    run: Run, test: ImageSet, *, data_dir: Path | None, allow_remote: bool
) -> tuple[Copies | None, InSeries | None]:
    """Find the test images that the run or its base was trained on, and those taken within seconds of such an image.

    None if they were not looked for, as when the training images have changed, and if none is in series.
    """
    train = read_split_of(run, "train", data_dir=data_dir, allow_remote=allow_remote)
    if describe_change(train, recorded=run.environment.data):
        return None, None
    learned_before = np.flatnonzero(_were_learned_before(run, test))
    recipe = recipe_here(run, data_dir=data_dir)
    if (whole := _learn_all(run, recipe)) != recipe:
        with suppress(UserError):  # the images of the old classes may be gone
            train = read_split(whole, "train", data_dir=data_dir, allow_remote=allow_remote)
            recipe = whole
    series = find_in_series(train, test, data_dir=data_dir)
    copies = _find_copies(recipe, train, test, learned_before, data_dir=data_dir, allow_remote=allow_remote)
    return copies, InSeries(series) if len(series) else None


def _find_copies(
    recipe: Recipe,
    train: ImageSet,
    test: ImageSet,
    learned_before: NDArray[np.int64],
    *,
    data_dir: Path | None,
    allow_remote: bool,
) -> Copies | None:
    """Find the test images with a copy among the training images of a recipe, and add those `learned_before`."""
    if recipe.image_size < SIDE and recipe.stream is None:  # too few pixels to recognize copies
        recipe = recipe.model_copy(update={"image_size": SIDE})
        train = read_split(recipe, "train", data_dir=data_dir, allow_remote=allow_remote)
        test = read_split(recipe, "test", data_dir=data_dir, allow_remote=allow_remote)
    found = find_copies(train, test)
    if found is None:
        return Copies(learned_before) if len(learned_before) else None
    return Copies(np.union1d(found.indices, learned_before))


def _were_learned_before(run: Run, test: ImageSet) -> NDArray[np.bool_]:
    """Tell which test images (N,) are the very pictures that the network learned from before this run."""
    before = run.digests.get("base")
    if before is None or test.digests is None:
        return np.zeros(len(test.labels), dtype=np.bool_)
    return np.isin(test.digests, before[before > 0])


def _learn_all(run: Run, recipe: Recipe) -> Recipe:
    """Return a recipe of all images that an extended network and its bases have learned from or held out."""
    extension = recipe.extension
    if extension is None or extension.method == "joint":
        return recipe
    data = restore_limits(
        recipe.data,
        before=run.base_recipe.data,
        lowered=extension.old_limit,
        num_old=extension.num_old_sources or 0,
    )
    return recipe if data == recipe.data else recipe.model_copy(update={"data": data, "validation": 0})


def _answer_split(network: Network, images: ImageSet) -> tuple[Predictions, Familiarities | None]:
    """Predict a split without augmentation; for test images also return the familiarity, if the network has one."""
    if images.split != "test" or network.familiarity is None:
        return _predict_split(network, images, views=1), None
    with _watching(images) as watched:
        logits, familiarity = network.logits_and_familiarity(watched)
    assert familiarity is not None
    return Predictions(logits.numpy(), images.labels.numpy()), Familiarities(familiarity.numpy())


def _predict_split(network: Network, images: ImageSet, *, views: int) -> Predictions:
    with _watching(images) as watched:
        return Predictions(network.logits(watched, views=views).numpy(), images.labels.numpy())


def _watching(images: ImageSet) -> AbstractContextManager[Stored]:
    return watching(images.images, f"evaluating on the {images.split} images")


def _predict_with_base(run: Run, extension: Extension, images: ImageSet, *, device: str) -> None:
    """Write the base's predictions for the images of its own classes."""
    if run.base_digest != extension.base:
        raise UserError(f"{run.base_path} is not the network that {run.path} was made from: extend that one again")
    base = Network.load(run.base_path, device=device)
    old = images.subset(np.flatnonzero(images.labels.numpy() < extension.num_old))
    known = replace(old, classes=base.classes)
    recorded = extension.base_test
    if recorded and not extension.merge and known.fingerprint != recorded:  # merged classes have more images
        raise UserError(
            f"the test images of the old classes are not those that the base of {run.path} was evaluated on: their "
            f"fingerprint was {recorded[:12]}… and is {known.fingerprint[:12]}…: evaluate the base and extend it again"
        )
    run.write_base_predictions(_predict_split(base, known, views=1))


def _check_fit(run: Run, network: Network, images: ImageSet) -> None:
    if images.classes != network.classes:
        raise UserError(f"{run.path} was trained on other classes than {run.recipe.data} has now: train it again")
    if images.images.shape[1] != network.channels:
        raise UserError(
            f"{run.path} was trained on images of {network.channels} channels, but those of the {images.split} split "
            f"of {run.recipe.data} have {images.images.shape[1]}: give them equal channels and train it again"
        )


def _record_data(run: Run, images: ImageSet) -> None:
    """Record that the run has used the split, and refuse a split that has changed.

    Raises: UserError if the fingerprint differs.
    """
    used = run.environment
    if change := describe_change(images, recorded=used.data):
        raise UserError(f"{change}, so {run.path} was made with other images: train it again")
    if images.split not in {data.split for data in used.data}:
        run.write_digests(images.split, images.digests)
        run.write_environment(
            used.model_copy(update={"data": (*used.data, describe_data(replace(images, expression=run.recipe.data)))})
        )


def _write_examples(run: Run, test: ImageSet) -> None:
    indices = np.asarray(confident_mistakes(*run.read_predictions("test")), dtype=np.int64)
    pictures = shrink(test.images[indices], largest=LARGEST_EXAMPLE)
    run.write_examples("test", Examples(indices, pictures.numpy()))
