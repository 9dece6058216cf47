"""Evaluation: from a finished run to predictions and metrics."""

from collections.abc import Sequence
from pathlib import Path

from reslab.errors import UserError
from reslab.evaluation.predict import predict
from reslab.evaluation.score import score
from reslab.records import SPLITS, Evaluation, SplitName
from reslab.runs import Run
from reslab.words import listing

__all__ = ["evaluate", "predict", "score"]


def evaluate(
    run: Run,
    *,
    splits: Sequence[SplitName] | None = None,
    views: int | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
) -> Evaluation:
    """Predict and measure splits of a finished run.

    Parameters
    ----------
    run : Run
        The run; its predictions and its `evaluation.json` are written into it.
    splits : sequence of {"train", "validation", "test"}, optional
        The splits to measure; by default training and test, for a trial training and validation.
    views : {2, 6}, optional
        Also measure with test-time augmentation, the mean over this many views of each image.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether machines named in the run's recipe may be contacted.

    Returns
    -------
    Evaluation
        Every metric with its confidence interval; accuracies lie in [0, 1].

    Raises
    ------
    UserError
        If a split or the number of views is unknown, the run is not finished or is a trial whose test split is asked
        for, its data has changed, or another process is working on it.

    Examples
    --------
    >>> import reslab
    >>> evaluation = reslab.evaluate(reslab.Run.open("runs/digits"), splits=["test"])
    >>> test = evaluation.splits["test"]
    >>> test.num_images, test.accuracy.value > 0.9
    (108, True)
    """
    splits = splits or ("train", run.recipe.measured_on)
    if isinstance(splits, str) or not set(splits) <= set(SPLITS):
        raise UserError(f"splits {splits!r}: give a list of {listing(SPLITS)}")
    if views not in (None, 2, 6):
        raise UserError(f"--views {views}: choose 2 (the image and its mirror image) or 6 (both also moved by a pixel)")
    run.check_finished()
    with run.locked():  # two at once would overwrite each other's splits
        predict(run, splits=splits, views=views, device=device, data_dir=data_dir, allow_remote=allow_remote)
        return score(run, splits=splits, views=views)
