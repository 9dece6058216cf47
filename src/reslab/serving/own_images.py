"""A run's own training and validation images, if they are on this machine and unchanged."""

from pathlib import Path
from typing import Literal

from reslab.data.expression import parse
from reslab.data.images import ImageSet
from reslab.data.notes import already_said
from reslab.data.recipe_data import describe_change, read_split_of
from reslab.data.sources.catalog import OFFICIAL
from reslab.data.sources.cifar import find_data_dir, where_is
from reslab.data.split import limit
from reslab.errors import Failure, UserError
from reslab.runs import Run


def read_some(run: Run, *, num: int, data_dir: Path | None, allow_remote: bool = False) -> ImageSet | str:
    """Read about `num` of the run's training images, equally many per class, or say why not. Downloads nothing."""
    images = read_own(run, "train", data_dir=data_dir, allow_remote=allow_remote)
    if isinstance(images, str):
        return images
    of_each = -(-num // len(images.classes))
    return images.subset(limit(images.labels.numpy(), classes=images.classes, num=of_each))


def read_own(
    run: Run, split: Literal["train", "validation"], *, data_dir: Path | None, allow_remote: bool = False
) -> ImageSet | str:
    """Read a split of the run's data, or say in a sentence why not. Downloads nothing.

    A foreign run may name any folder, so pictures are shown only if the run has recorded their fingerprint.
    """
    try:
        if split not in {data.split for data in run.environment.data}:
            return f"The run has no record of its {split} images."
        if absent := _find_absent(run.recipe.data, data_dir):
            return f"{absent} is not on this machine: pass its folder as --data-dir."
        with already_said():
            images = read_split_of(run, split, data_dir=data_dir, allow_remote=allow_remote)
        change = describe_change(images, recorded=run.environment.data)
    except (UserError, Failure) as error:
        return f"{error}."
    return f"{change[0].upper()}{change[1:]}." if change else images


def _find_absent(expression: str, data_dir: Path | None) -> str | None:
    """Return a source that reading would have to download, if any."""
    folder = find_data_dir(data_dir)
    for source in {term.source for term in parse(expression)} & OFFICIAL.keys():
        if where_is(OFFICIAL[source].archive, folder) is None:
            return source
    return None
