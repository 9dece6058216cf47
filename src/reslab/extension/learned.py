"""The training images of a run to be extended, which must be unchanged."""

from pathlib import Path

import numpy as np

from reslab.data.images import ImageSet
from reslab.data.load import find_digests
from reslab.data.recipe_data import describe_change, read_split_of, recipe_here
from reslab.errors import UserError
from reslab.runs import Run
from reslab.words import counted


def read_learned(run: Run, *, data_dir: Path | None) -> tuple[ImageSet, ImageSet | None]:
    """Read the training images of a run, and its held-out images, if any.

    Raises: UserError if they differ from those that it was trained on.
    """
    found = []
    for split in ("train", "validation") if run.recipe.validation else ("train",):
        images = read_split_of(run, split, data_dir=data_dir, allow_remote=True)
        if change := describe_change(images, recorded=run.environment.data):
            raise UserError(f"{change}; {_describe_learned(run, data_dir=data_dir)}: train it again")
        found.append(images)
    return found[0], found[1] if len(found) > 1 else None


def _describe_learned(run: Run, *, data_dir: Path | None) -> str:
    """Describe how many of the present test images were trained on; only hash their files."""
    learned = run.learned_digests
    if learned is None:
        return f"pictures that {run.path} was trained on may now be test images"
    now = find_digests(recipe_here(run, data_dir=data_dir).data, "test", data_dir=data_dir)
    num = int(np.isin(now, learned[learned > 0]).sum())
    return f"{run.path} has learned from {num:,} of the {counted(len(now), 'picture')} that are test images now"
