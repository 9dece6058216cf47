"""Everything that a report reads from a run folder, read once and checked for consistency."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.errors import UserError, in_shell
from reslab.language import say
from reslab.recipe.recipe import Recipe
from reslab.records import FAMILIARITY, Candidates, Environment, Epoch, Evaluation, SplitFigures, Weights
from reslab.report.gallery import Gallery, read_gallery
from reslab.runs import Examples, Familiarities, Predictions, Run, read_exhibit, read_weights
from reslab.words import printable

# Statistics of batch normalisation are state, not trained parameters.
_STATE = ("running_mean", "running_var", "num_batches_tracked")


class Inputs(NamedTuple):
    """The contents of a run folder; predictions, names of files and examples are those of the test split."""

    name: str
    path: Path
    recipe: Recipe
    origin: Recipe  # of the network that an extension began from; else the run's own
    environment: Environment
    log: list[Epoch]
    weights: Weights
    num_parameters: int
    evaluation: Evaluation
    predictions: Predictions
    names: tuple[str, ...] | None
    examples: Examples
    gallery: Gallery
    familiarity: NDArray[np.float32] | None  # of each test image
    candidates: Candidates | None

    @property
    def test(self) -> SplitFigures:
        return self.evaluation.splits["test"]

    def file_of(self, index: int) -> str:
        """Return the picture file of a test image; empty if there is none."""
        return printable(self.names[index]) if self.names else ""

    def call(self, index: int) -> str:
        """Name a test image by its number, and by its file if there is one."""
        file = self.file_of(index)
        return say("Test image {index}", index=index) + (f" ({file})" if file else "")


def read_inputs(run: Run) -> Inputs:
    """Read an evaluated run. Raises: UserError if a file is missing, damaged or belongs to another evaluation."""
    evaluation = run.evaluation
    if run.recipe.trial:
        raise UserError(
            f"{run.path} is a trial and has no test metrics to report: compare trials with reslab "
            "compare, and report the run of what you choose"
        )
    if "test" not in evaluation.splits:
        raise UserError(f"{run.path} has no metrics of the test split: run reslab evaluate {in_shell(run.path)}")
    tensors, weights = read_weights(run.path)
    known = read_exhibit(run.path, "test", Familiarities)
    inputs = Inputs(
        name=run.name,
        path=run.path,
        recipe=run.recipe,
        origin=run.base_recipe,
        environment=run.environment,
        log=run.log,
        weights=weights,
        num_parameters=sum(value.size for name, value in tensors.items() if _is_parameter(name)),
        evaluation=evaluation,
        predictions=run.read_predictions("test"),
        names=run.read_names("test"),
        examples=run.read_examples("test"),
        gallery=read_gallery(run, evaluation),
        familiarity=known and known.familiarity,
        candidates=run.candidates,
    )
    if not _belong_together(inputs):
        raise UserError(
            f"{run.path} holds files of different evaluations: run reslab evaluate {in_shell(run.path)} again"
        )
    return inputs


def _belong_together(inputs: Inputs) -> bool:
    logits, labels = inputs.predictions
    planned, measured = inputs.recipe.extension, inputs.evaluation.extension
    indices, images = inputs.examples
    num_images, num_classes = inputs.test.num_images, len(inputs.evaluation.classes)
    return (
        logits.shape == (num_images, num_classes)
        and labels.shape == (num_images,)
        and (inputs.gallery.copies is None or bool((inputs.gallery.copies.indices < num_images).all()))
        and (inputs.familiarity is None or inputs.familiarity.shape == labels.shape)
        and indices.shape == images.shape[:1]
        and images.ndim == 4
        and bool(((indices >= 0) & (indices < num_images)).all())
        and bool(((labels >= 0) & (labels < num_classes)).all())
        and inputs.evaluation.classes == inputs.weights.classes
        and (planned and planned.num_old) == (measured and measured.num_old)
        and (measured is None or len(measured.old_classes) + len(measured.new_classes) == num_classes)
    )


def _is_parameter(name: str) -> bool:
    return not name.endswith(_STATE) and not name.startswith(FAMILIARITY)
