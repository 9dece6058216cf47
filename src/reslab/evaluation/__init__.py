"""Evaluation: a finished run to predictions and figures."""

from collections.abc import Sequence
from pathlib import Path

from reslab.evaluation.predict import predict
from reslab.evaluation.score import score
from reslab.records import Evaluation, SplitName
from reslab.runs import Run

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
    """Predict and measure the named splits of a finished run; with `views`, also with test-time augmentation.

    By default those are the training and the test split, of a trial the training and the validation split. Another
    machine that the run's recipe names is contacted with `allow_remote` alone.
    Raises: UserError where the run is not finished, it is a trial whose test split is asked for, its data has changed
    or another process works on it.
    """
    splits = splits or ("train", run.recipe.measured_on)
    with run.locked():  # two at once would lose each other's splits
        predict(run, splits=splits, views=views, device=device, data_dir=data_dir, allow_remote=allow_remote)
        return score(run, splits=splits, views=views)
