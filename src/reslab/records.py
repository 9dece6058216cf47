"""What the files of a run folder hold, as types: the contract between the stages.

Fractions lie in [0, 1], times are seconds, confusion matrices have a row per true and a column per predicted class.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from reslab.language import decimal, say
from reslab.recipe import schema as recipe_schema
from reslab.recipe.networks import Model
from reslab.recipe.recipe import LinearHead, Method, Recipe, Standardize
from reslab.recipe.shapes import Resizing
from reslab.recipe.value import Fraction, Part
from reslab.words import counted, percent

SCHEMA_VERSION: Final = 1
Compiled = Literal["yes", "no", "undecided"]
Precision = Literal["float32", "bfloat16"]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class DataSet(Part):
    """One split that a run has used: its expression, size and SHA-256 over classes, images and labels.

    `num_damaged` pictures could not be read and were left out.
    """

    expression: str
    split: SplitName
    num_images: PositiveInt
    fingerprint: str
    num_damaged: NonNegativeInt = 0


class Setup(Part):
    """By what a run, or a stretch of it, was computed: all that may round its sums otherwise."""

    reslab: str
    python: str
    torch: str
    numpy: str
    platform: str
    processor: str
    device: str
    threads: PositiveInt
    commit: str | None
    precision: Precision | None = None  # what training multiplies with; see `multiplied`
    ranks: PositiveInt = 1  # processes that trained it together

    @property
    def multiplied(self) -> Precision:
        """What training multiplies with; before that was recorded, it was bfloat16 on a GPU alone."""
        return self.precision or ("float32" if self.device == "cpu" else "bfloat16")


class Segment(Setup):
    """A stretch of a run that was computed by something else than the one before it, after so many `updates`."""

    updates: PositiveInt
    started: str  # ISO 8601, UTC


class Environment(Setup):
    """Where and how a run was made (`environment.json`); the setup is that of its start."""

    schema_version: Literal[1] = SCHEMA_VERSION
    command: str
    seed: NonNegativeInt
    started: str  # ISO 8601, UTC
    data: tuple[DataSet, ...]
    compiled: Compiled = "undecided"  # whether training compiles the network
    deterministic: bool = False  # only algorithms that repeat to the bit
    data_from: str | None = None  # where relative paths of the data begin, as seen from the run folder
    segments: tuple[Segment, ...] = ()  # in their order; an older reslab recorded none

    @property
    def newest(self) -> Setup:
        """What computed the last updates."""
        setup = self.segments[-1] if self.segments else self
        return setup.model_copy(update={"precision": setup.precision or self.multiplied})

    def until(self, updates: int) -> "Environment":
        """Leave out the segments that were lost, because no checkpoint later than `updates` was kept."""
        return self.model_copy(update={"segments": tuple(each for each in self.segments if each.updates < updates)})


class Epoch(Part):
    """One line of `log.jsonl`; epochs count from 1. Validation figures are absent where nothing was held out."""

    epoch: PositiveInt
    updates: PositiveInt  # since the start of the run
    seconds: NonNegativeFloat
    images_per_second: NonNegativeFloat
    learning_rate: NonNegativeFloat  # at the last update
    train_loss: float
    train_accuracy: Fraction
    validation_loss: float | None = None
    validation_accuracy: Fraction | None = None
    rate_factor: PositiveFloat = 1.0  # below 1 from the epoch on in which a loss was not finite


class Progress(Part):
    """How far the epoch under way is: its number, the share of its updates, and loss and accuracy over those."""

    epoch: PositiveInt
    share: Fraction
    train_loss: float
    train_accuracy: Fraction


class Calibration(Part):
    """By what the head's logits have been divided already, and on how many images that rests.

    They were held out, by the run named `twin` where the run itself held none out, or they are the training images,
    each judged `out_of_folds` by a head that had not seen it. There are none where the temperature is the recipe's own.
    """

    temperature: PositiveFloat
    num_images: PositiveInt | None = None
    twin: str | None = None
    out_of_folds: bool = False

    @property
    def words(self) -> str:
        """Say what the probabilities rest on."""
        if self.num_images is None:
            source = say("trials of the recipe")
        elif self.out_of_folds:
            source = say("{images}, out of folds", images=counted(self.num_images, "training image"))
        else:
            source = counted(self.num_images, "held-out image")
        if self.twin is not None:
            source = say("{images} of its twin {twin}", images=source, twin=self.twin)
        temperature = decimal(self.temperature, 2)
        return say("calibrated on {source}: temperature {temperature}", source=source, temperature=temperature)


class ClassSets(Part):
    """How to choose sets of classes that hold the truth: see `reslab.measure.class_sets`.

    Each of `thresholds` is a coverage and the threshold that gives it, by so many images that were not
    learned from, in ascending order.
    """

    num_images: PositiveInt
    thresholds: Annotated[tuple[tuple[Fraction, Fraction], ...], Field(min_length=1)]


FAMILIARITY: Final = "familiarity."  # what begins the names of tensors that are not the layers'


class Weights(Part):
    """The metadata of `model.safetensors`: with it the file alone can predict."""

    schema_version: Literal[2] = recipe_schema.SCHEMA_VERSION
    model: Model
    classes: tuple[str, ...]
    channels: PositiveInt
    image_size: PositiveInt
    resize: Resizing = "squeeze"
    standardize: Standardize
    calibration: Calibration | None = None
    class_sets: ClassSets | None = None

    @model_validator(mode="before")
    @classmethod
    def _reads_older_schemas(cls, content: Any) -> Any:
        return recipe_schema.upgrade(content)


class Estimate(Part):
    """A figure with the ends of its confidence interval."""

    value: float
    low: float
    high: float


class ClassFigures(Part):
    """One class of one split; `support` counts its images."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: NonNegativeInt


class Figures(Part):
    """The figures of one split; log loss is in nats."""

    num_images: PositiveInt
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_precision: Estimate
    macro_recall: Estimate
    macro_f1: Estimate
    log_loss: Estimate
    expected_calibration_error: Estimate
    log_loss_uncalibrated: Estimate | None = None  # both before the logits were divided by a temperature
    expected_calibration_error_uncalibrated: Estimate | None = None
    top5_accuracy: Estimate | None = None  # only where there are more than ten classes
    per_class: tuple[ClassFigures, ...]
    confusion_matrix: tuple[tuple[NonNegativeInt, ...], ...]


class AugmentedFigures(Part):
    """The same split with the mean of several views' logits; only ever shown next to the figure without it."""

    views: PositiveInt
    figures: Figures


class WithoutCopies(Part):
    """The test images less those that have a copy, exact or near, among the training images; none may be left."""

    num_copies: NonNegativeInt
    accuracy: Estimate | None


class SetFigures(Part):
    """Sets of classes that were promised to hold the truth in a share `promised` of cases, as they were on test images.

    `covered` is the share that did, of all images and of those of each class; `size` the mean number of classes in a
    set, and `single` the share of sets of one class.
    """

    promised: Fraction
    covered: Estimate
    size: PositiveFloat
    single: Fraction
    per_class: tuple[Estimate, ...]


class AnsweredFigures(Part):
    """What became of the test images where a share `promised` was to be answered: the share that was, and accuracies.

    An accuracy is absent where there are no such images.
    """

    promised: Fraction
    answered: Estimate
    accuracy: Estimate | None
    accuracy_of_others: Estimate | None


class SplitFigures(Figures):
    """A split's figures, and beside them those with test-time augmentation where they were asked for.

    Of the test split, unless it is too large to be compared with the training images, also those without copies; and
    what became of the promises, where any were made.
    """

    test_time_augmentation: AugmentedFigures | None = None
    without_copies: WithoutCopies | None = None  # an older reslab looked for none
    class_sets: tuple[SetFigures, ...] = ()
    answered: AnsweredFigures | None = None


class OtherData(Part):
    """`evaluation-NAME.json`: a run's network on labelled images that are not its own test split.

    `own` is the accuracy on the run's test images of the same classes, `change` the accuracy here less that one; both
    are absent where the test split has not been evaluated. Where images pair by name, both are of `num_paired` images.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    recipe: str
    evaluated: str  # ISO 8601, UTC
    data: DataSet
    is_whole: bool  # training and test images together, of data that has no splits of its own
    classes: tuple[str, ...]  # of the network
    absent: tuple[str, ...]  # those of them that the data does not have
    figures: Figures
    own: Estimate | None = None
    change: Estimate | None = None
    num_paired: NonNegativeInt = 0


# ---- what a fitted run adds


class Candidate(Part):
    """What `fit` might have chosen, as it was judged out of folds of the training images; or why it was left out.

    With `trained`, that network is beside the frozen one and has a `share` of the logits, and it was judged on
    `num_held_out` images that neither was computed from. `log_loss` is the plain cross-entropy.
    """

    network: str
    image_size: PositiveInt
    resize: Resizing = "squeeze"
    head: LinearHead | None = None  # None: it was left out
    accuracy: Estimate | None = None
    log_loss: float | None = None
    seconds: NonNegativeFloat = 0.0  # without the features
    trained: Recipe | None = None
    share: Fraction | None = None
    num_held_out: PositiveInt | None = None
    left_out: str | None = None
    chosen: bool = False

    @property
    def words(self) -> str:
        """The name in a table."""
        resized = {"squeeze": None, "pad": say("padded"), "crop": say("cropped")}[self.resize]
        sized = say("{network} at {size} pixels", network=self.network, size=self.image_size)
        parts = [sized, resized, self.head and self.head.words]
        frozen = ", ".join(part for part in parts if part)
        if self.trained is None or not self.share:
            return frozen
        trained = f"{self.trained.model.label} {self.trained.name}"
        if self.share == 1:
            return trained
        share = percent(self.share, decimals=0)
        return say("{trained} ({share} of the logits) beside {frozen}", trained=trained, share=share, frozen=frozen)

    @property
    def judged_on(self) -> str:
        """What the accuracy is of."""
        if self.num_held_out is None:
            return say("out of folds")
        return say("on {images}", images=counted(self.num_held_out, "held-out image"))


class Candidates(Part):
    """`candidates.json`, by fit: what was tried within so many minutes, in its order."""

    schema_version: Literal[1] = SCHEMA_VERSION
    minutes: PositiveFloat
    seconds: NonNegativeFloat  # what it took
    candidates: tuple[Candidate, ...]


# ---- what an extended run adds


class PriorPoint(Part):
    """The validation figures of one strength of the prior's removal."""

    tau: Fraction
    accuracy: Estimate
    macro_precision: Estimate
    macro_recall: Estimate
    macro_f1: Estimate


class PriorChoice(Part):
    """`prior.json`, by extend: how much of the data's prior is taken out of the logits (0: none, 1: all), and why.

    `tau` has the best macro F1 on the validation images; without any old ones it is 1 and the curve is empty.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    tau: Fraction
    curve: tuple[PriorPoint, ...]
    strength: float | None = None  # of the head's regularization, where it was chosen on the same images

    @property
    def is_flat(self) -> bool:
        """Tell whether every tau is as good as any other."""
        return len({point.macro_f1.value for point in self.curve}) == 1

    @property
    def best(self) -> float:
        """The macro F1 of the chosen tau."""
        return max(point.macro_f1.value for point in self.curve)


class OldClass(Part):
    """The share of an old class's test images that the network classifies correctly, before and after extension."""

    before: Estimate
    after: Estimate


class Errors(Part):
    """Where the test images of a new class go that are not recognised: the class taken for it, and their share."""

    mistaken_for: str
    share: Estimate


class NewClass(Part):
    """A new class's test figures, its images taken for any old class, and its most frequent errors, those first."""

    figures: ClassFigures
    taken_for_old: Estimate
    errors: tuple[Errors, ...]


class ExtensionFigures(Part):
    """What the extension has done, on the test split; classes in the order of the evaluation's, old ones first.

    Before is the base among its own classes, after the extended network among all, both on the old classes' images.
    """

    method: Method
    num_old: PositiveInt
    old_before: Estimate
    old_after: Estimate
    old_change: Estimate  # after less before, with a paired interval
    new_macro_f1: Estimate
    old_classes: tuple[OldClass, ...]
    new_classes: tuple[NewClass, ...]
    prior: PriorChoice


# ---- the whole


class Evaluation(Part):
    """What `evaluate` measures and `evaluation.json` holds: every figure that the report shows.

    Log loss and calibration error carry bootstrap intervals; see `reslab.measure.intervals` for the others.

    Attributes
    ----------
    classes : tuple of str
        The names of the K classes.
    confidence : float
        That of the intervals, in (0, 1).
    splits : dict of str to SplitFigures
        By split: accuracy, balanced accuracy, macro precision, recall and F1, log loss in nats, calibration error,
        figures per class, and the confusion matrix (K, K).
    calibration : Calibration or None
        The temperature that is in the weights, and what it rests on; None where they are not calibrated.
    extension : ExtensionFigures or None
        Of an extended run whose test split is evaluated: what it has gained and lost.

    Examples
    --------
    >>> import reslab
    >>> accuracy = reslab.Run.open("runs/digits").evaluation.splits["test"].accuracy
    >>> accuracy.low <= accuracy.value <= accuracy.high
    True
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    recipe: str
    evaluated: str  # ISO 8601, UTC
    confidence: Annotated[float, Field(gt=0, lt=1)]
    bootstrap_resamples: PositiveInt
    classes: tuple[str, ...]
    calibration: Calibration | None = None
    splits: dict[SplitName, SplitFigures]
    extension: ExtensionFigures | None = None  # of an extended run whose test split is evaluated
