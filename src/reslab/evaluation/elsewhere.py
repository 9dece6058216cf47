"""Evaluate a network on labelled images other than those of its recipe: do its metrics carry over?

This reads the run's test predictions, if there are any, but never its test split.
Axes: N images, K classes.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import torch

from reslab.data.expression import LocatedTerm, Term, parse
from reslab.data.framing import Form
from reslab.data.images import ImageSet
from reslab.data.load import find_place, load, load_uncut
from reslab.data.recipe_data import describe_data, recipe_here
from reslab.errors import UserError, did_you_mean, in_shell, show
from reslab.evaluation.score import applied_temperature, find_complaint, measure
from reslab.machine import kernels
from reslab.measure.estimates import difference, gain, macro_over, share_of
from reslab.measure.intervals import Macro
from reslab.network.inference import watching
from reslab.network.network import Network
from reslab.recipe.shapes import Channels
from reslab.records import Estimate, Figures, OtherData
from reslab.runs import Predictions, Run
from reslab.runs.files import write_json

MACRO: Final[tuple[Macro, ...]] = ("precision", "recall", "f1")
SAME_LOGITS = 1e-3  # apart on two machines or in batches of two sizes
FEWEST_PAIRED = 0.9  # of the images; fewer have the same names by chance


def evaluate_elsewhere(
    run: Run, *, data: str, device: str = "auto", data_dir: Path | None = None, skip_damaged: bool = False
) -> tuple[OtherData, Path]:
    """Measure a finished run on other labelled images, and write `evaluation-NAME.json` into its folder.

    Of picture files that nobody has split, all are measured; of other data the test split.

    Parameters
    ----------
    run : Run
        The run; its own evaluation is not changed.
    data : str
        A data expression whose class names are among the run's.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    skip_damaged : bool, default False
        Whether to leave out pictures that cannot be read.

    Returns
    -------
    OtherData
        The metrics, and how the accuracy differs from that on the run's own test images.
    Path
        The file that was written.

    Raises
    ------
    UserError
        If the network does not know a class, or this is the run's own data and its test split is not evaluated yet.

    Examples
    --------
    >>> import reslab
    >>> found, path = reslab.evaluate_elsewhere(reslab.Run.open("runs/digits"), data="digits:1,4")
    >>> found.absent, found.figures.accuracy.value > 0.9
    (('7',), True)
    """
    network = Network.load(run.path, device=device)
    kernels.enable(network.device)
    _check_closed(run, data, data_dir=data_dir, skip_damaged=skip_damaged)
    images, is_whole = _read(network, data, data_dir=data_dir, skip_damaged=skip_damaged)
    known = _label_as(images, network.classes, expression=data)
    with watching(known.images, f"evaluating on {data}") as watched:
        predictions = Predictions(network.logits(watched).numpy(), known.labels.numpy())
    if complaint := find_complaint(*predictions, num_classes=len(network.classes)):
        raise UserError(f"--data {data} cannot be scored: {complaint}")
    own, change, num_paired = _compare(run, known, predictions)
    figures = measure(predictions, temperature=applied_temperature(network.metadata.calibration))
    absent = tuple(name for name in network.classes if name not in images.classes)
    found = OtherData(
        recipe=run.recipe.name,
        evaluated=datetime.now(UTC).isoformat(timespec="seconds"),
        data=describe_data(images),
        is_whole=is_whole,
        num_learned=_count_learned(run, images),
        classes=network.classes,
        absent=absent,
        figures=_over_present(figures) if absent else figures,
        own=own,
        change=change,
        num_paired=num_paired,
    )
    path = run.path / f"evaluation-{_file_name(data)}.json"
    write_json(path, found.model_dump(mode="json"))
    return found, path


def _count_learned(run: Run, images: ImageSet) -> int:
    """Count the images whose files the run, or a base of it, has learned from or held out."""
    learned = run.learned_digests
    if learned is None or images.digests is None:
        return 0
    return int(np.isin(images.digests, learned[learned > 0]).sum())


def _over_present(figures: Figures) -> Figures:
    """Average the macro metrics over the classes that have images."""
    matrix = np.array(figures.confusion_matrix)
    present = np.flatnonzero(matrix.sum(axis=1))
    macro = {f"macro_{figure}": macro_over(matrix, present, figure=figure) for figure in MACRO}
    return figures.model_copy(update=macro)


def _file_name(expression: str) -> str:
    """Return a file name for an expression: its readable characters, and a digest of the whole."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", expression).strip("-")[:60]
    return f"{readable}-{hashlib.sha256(expression.encode()).hexdigest()[:8]}"


def _check_closed(run: Run, expression: str, *, data_dir: Path | None, skip_damaged: bool) -> None:
    """Raises: UserError if the data would open the run's own test split before `evaluate` has."""
    sources, own = (
        {_place_of(term, data_dir) for term in parse(each)}
        for each in (expression, recipe_here(run, data_dir=data_dir).data)
    )
    is_own = any(_overlap(place, other) for place in sources for other in own)
    if not _has_test(run) and (
        is_own or _holds_training_images(run, expression, data_dir=data_dir, skip_damaged=skip_damaged)
    ):
        reason = "it is a trial" if run.recipe.trial else f"run reslab evaluate {in_shell(run.path)} first"
        raise UserError(f"--data {expression} would open the test split of {run.path}, which is still closed: {reason}")


def _holds_training_images(run: Run, expression: str, *, data_dir: Path | None, skip_damaged: bool) -> bool:
    """Tell whether most of the run's training images are in the data, or most of its images are theirs."""
    known = run.digests.get("train", np.empty(0, dtype=np.uint64))
    known = known[known > 0]
    if not len(known):
        return False
    size = run.recipe.image_size
    images = load_uncut(expression, data_dir=data_dir, form=Form(size), skip_damaged=skip_damaged)
    if images is None:
        images = load(expression, "train", data_dir=data_dir, image_size=size, skip_damaged=skip_damaged)
    if images.digests is None:
        return False
    return bool(max(np.isin(known, images.digests).mean(), np.isin(images.digests, known).mean()) > 0.5)


def _place_of(term: Term, data_dir: Path | None) -> str:
    return os.path.realpath(find_place(term.path, data_dir)) if isinstance(term, LocatedTerm) else term.origin


def _overlap(place: str, other: str) -> bool:
    """Tell whether two places are the same, or one lies in the other."""
    return place == other or other in map(str, Path(place).parents) or place in map(str, Path(other).parents)


def _has_test(run: Run) -> bool:
    return run.is_evaluated and "test" in run.evaluation.splits


def _read(network: Network, expression: str, *, data_dir: Path | None, skip_damaged: bool) -> tuple[ImageSet, bool]:
    """Read the test split, or all pictures if the data has no splits; also return whether it is all of them."""
    channels: dict[int, Channels] = {1: 1, 3: 3}
    form = Form(network.image_size, network.resize, channels.get(network.channels, "auto"), network.white)
    whole = load_uncut(expression, data_dir=data_dir, form=form, skip_damaged=skip_damaged)
    if whole is not None:
        return whole, True
    test = load(
        expression,
        "test",
        data_dir=data_dir,
        image_size=form.image_size,
        resize=form.resize,
        white=form.white,
        channels=form.channels,
        skip_damaged=skip_damaged,
    )
    return test, False


def _label_as(images: ImageSet, classes: Sequence[str], *, expression: str) -> ImageSet:
    """Number the classes as the network does. Raises: UserError if it does not know one of them."""
    for name in images.classes:
        if name not in classes:
            hint = did_you_mean(name, classes, otherwise=f"it knows {', '.join(classes)}")
            raise UserError(f"--data {expression} has a class {show(name)} that the network does not know; {hint}")
    numbers = torch.tensor([classes.index(name) for name in images.classes])
    return replace(images, labels=numbers[images.labels], classes=tuple(classes))


def _compare(run: Run, images: ImageSet, predictions: Predictions) -> tuple[Estimate | None, Estimate | None, int]:
    """Return the accuracy on the run's own test images of the same classes, the change, and the number of pairs."""
    if not _has_test(run):
        return None, None, 0
    right_here = predictions.logits.argmax(axis=1) == predictions.labels
    if not run.has_predictions("test"):  # it was pulled: of its own test, only the metrics are here
        if len(np.unique(predictions.labels)) < len(images.classes):
            return None, None, 0
        accuracy = run.evaluation.splits["test"].accuracy
        return accuracy, difference(accuracy, after=share_of(right_here)), 0
    own = run.read_predictions("test")
    right_there = own.logits.argmax(axis=1) == own.labels
    places = _pair(run, images, own)
    same = np.flatnonzero(np.isin(own.labels, predictions.labels))
    if _are_equal(Predictions(own.logits[same], own.labels[same]), predictions):  # with or without names
        places = list(zip(same, range(len(same)), strict=True))
    if len(places) >= FEWEST_PAIRED * len(images.labels):
        there, here = map(list, zip(*places, strict=True))
        return share_of(right_there[there]), gain(right_there[there], after=right_here[here]), len(places)
    if not len(same):
        return None, None, 0
    share = share_of(right_there[same])
    return share, difference(share, after=share_of(right_here)), 0


def _are_equal(one: Predictions, other: Predictions) -> bool:
    """Tell whether two predictions of one network are of the same images in the same order."""
    is_labelled_alike = np.array_equal(one.labels, other.labels)
    return is_labelled_alike and np.allclose(one.logits, other.logits, rtol=0, atol=SAME_LOGITS)


def _pair(run: Run, images: ImageSet, own: Predictions) -> list[tuple[int, int]]:
    """Pair images of the same class and name, apart from its ending: indices among the run's test images, and here."""
    names = run.read_names("test")
    if names is None or images.names is None:
        return []
    there, here = (
        [
            ((str(PurePosixPath(name).with_suffix("")), int(label)), place)
            for place, (name, label) in enumerate(zip(*both, strict=True))
            if name
        ]
        for both in ((names, own.labels), (images.names, images.labels))
    )
    places = dict(there)
    is_unique = len(places) == len(there) and len(dict(here)) == len(here)
    return [(places[key], place) for key, place in here if key in places] if is_unique else []
