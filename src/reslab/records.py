"""Types of the files in a run folder: the contract between the stages.

Fractions lie in [0, 1], times are seconds, confusion matrices have a row per true and a column per predicted class.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from reslab.language import decimal, say
from reslab.machine import Precision
from reslab.recipe import schema as recipe_schema
from reslab.recipe.networks import Model
from reslab.recipe.recipe import LinearHead, Method, Recipe, Standardize
from reslab.recipe.shapes import Resizing
from reslab.recipe.value import Fraction, Part
from reslab.words import counted, duration, percent

SCHEMA_VERSION: Final = 1
Compiled = Literal["yes", "no", "undecided"]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class DataSet(Part):
    """One split used by a run: its expression, size and SHA-256 over classes, images and labels.

    `num_damaged` counts unreadable pictures that were left out.
    """

    expression: str
    split: SplitName
    num_images: PositiveInt
    fingerprint: str
    num_damaged: NonNegativeInt = 0


class Setup(Part):
    """What computed a run, or a stretch of it: everything that can change how sums are rounded."""

    reslab: str
    python: str
    torch: str
    numpy: str
    platform: str
    processor: str
    device: str
    threads: PositiveInt
    commit: str | None
    precision: Precision | None = None  # of multiplications in training; see `multiplied`
    ranks: PositiveInt = 1  # number of processes that trained it together
    kernels: Literal["on", "off"] | None = None  # reslab's own, on a processor; older versions did not record them

    def differing(self, other: "Setup") -> list[str]:
        """Return the fields in which two setups differ; kernels that one of them does not record count as equal."""
        names = [name for name in Setup.model_fields if getattr(self, name) != getattr(other, name)]
        return [name for name in names if name != "kernels" or None not in (self.kernels, other.kernels)]

    @property
    def multiplied(self) -> Precision:
        """The precision of multiplications in training; runs that do not record it used bfloat16 only on GPUs."""
        return self.precision or ("float32" if self.device == "cpu" else "bfloat16")


class Segment(Setup):
    """A stretch of a run that begins after `updates` updates and was computed by a different setup than before."""

    updates: PositiveInt
    started: str  # ISO 8601, UTC


class Environment(Setup):
    """Where and how a run was made (`environment.json`); the setup is the one it started with."""

    schema_version: Literal[1] = SCHEMA_VERSION
    command: str
    seed: NonNegativeInt
    started: str  # ISO 8601, UTC
    data: tuple[DataSet, ...]
    compiled: Compiled = "undecided"  # whether training compiles the network
    deterministic: bool = False  # only bitwise reproducible algorithms
    data_from: str | None = None  # base of the data's relative paths, relative to the run folder
    segments: tuple[Segment, ...] = ()  # in order; older versions recorded none

    @property
    def newest(self) -> Setup:
        """The setup that computed the last updates."""
        setup = self.segments[-1] if self.segments else self
        return setup.model_copy(update={"precision": setup.precision or self.multiplied})

    def used(self, split: SplitName) -> DataSet | None:
        """What the run read as a split; None if that was not recorded."""
        return next((data for data in self.data if data.split == split), None)

    def fingerprint(self, split: SplitName) -> str | None:
        """The fingerprint of a split's images, of how they were read and of the order of their files."""
        used = self.used(split)
        return used.fingerprint if used else None

    def until(self, updates: int) -> "Environment":
        """Leave out segments that were lost because no checkpoint later than `updates` was kept."""
        return self.model_copy(update={"segments": tuple(each for each in self.segments if each.updates < updates)})


class Epoch(Part):
    """One line of `log.jsonl`; epochs count from 1. Validation metrics are absent if nothing was held out."""

    epoch: PositiveInt
    updates: PositiveInt  # since the start of the run
    seconds: NonNegativeFloat
    images_per_second: NonNegativeFloat
    learning_rate: NonNegativeFloat  # at the last update
    train_loss: float
    train_accuracy: Fraction
    validation_loss: float | None = None
    validation_accuracy: Fraction | None = None
    rate_factor: PositiveFloat = 1.0  # below 1 from the epoch in which a loss was not finite


class Progress(Part):
    """Progress of the current epoch: its number, the share of its updates done, and loss and accuracy over those."""

    epoch: PositiveInt
    share: Fraction
    train_loss: float
    train_accuracy: Fraction


class Calibration(Part):
    """The temperature by which the head's logits are already divided, and the number of images it was fitted on.

    The images were held out by the run, or by the run named `twin` if the run held none out, or they are the training
    images, each judged `out_of_folds` by a head that had not seen it. A temperature set by the recipe has none.
    """

    temperature: PositiveFloat
    num_images: PositiveInt | None = None
    twin: str | None = None
    out_of_folds: bool = False

    @property
    def words(self) -> str:
        """Describe what the probabilities are based on."""
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
    """How to choose sets of classes that contain the true class: see `reslab.measure.class_sets`.

    Each of `thresholds` is a coverage and the threshold that achieves it, in ascending order, as measured on images
    that were not trained on.
    """

    num_images: PositiveInt
    thresholds: Annotated[tuple[tuple[Fraction, Fraction], ...], Field(min_length=1)]


FAMILIARITY: Final = "familiarity."  # prefix of the tensors that do not belong to layers


class Weights(Part):
    """The metadata of `model.safetensors`, which make the file sufficient to predict."""

    schema_version: Literal[2] = recipe_schema.SCHEMA_VERSION
    model: Model
    classes: tuple[str, ...]
    channels: PositiveInt
    image_size: PositiveInt
    resize: Resizing = "squeeze"
    white: PositiveInt | None = None  # in grey pictures of more than 8 bits; None: unknown, so each picture's own
    standardize: Standardize
    calibration: Calibration | None = None
    class_sets: ClassSets | None = None

    @model_validator(mode="before")
    @classmethod
    def _reads_older_schemas(cls, content: Any) -> Any:
        return recipe_schema.upgrade(content)


class Estimate(Part):
    """A metric with the ends of its confidence interval."""

    value: float
    low: float
    high: float


class ClassFigures(Part):
    """Metrics of one class of one split; `support` counts its images."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: NonNegativeInt


class Figures(Part):
    """The metrics of one split; log loss is in nats."""

    num_images: PositiveInt
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_precision: Estimate
    macro_recall: Estimate
    macro_f1: Estimate
    log_loss: Estimate
    expected_calibration_error: Estimate
    log_loss_uncalibrated: Estimate | None = None  # this and the next: before the logits were divided by a temperature
    expected_calibration_error_uncalibrated: Estimate | None = None
    log_loss_change: Estimate | None = None  # this and the next: what the temperature changed, paired by image
    expected_calibration_error_change: Estimate | None = None
    top5_accuracy: Estimate | None = None  # only with more than ten classes
    per_class: tuple[ClassFigures, ...]
    confusion_matrix: tuple[tuple[NonNegativeInt, ...], ...]


class AugmentedFigures(Part):
    """The same split with test-time augmentation: never shown without the plain metric beside it."""

    views: PositiveInt
    figures: Figures


class WithoutCopies(Part):
    """The test images without exact or near copies of training images; there may be none left."""

    num_copies: NonNegativeInt
    accuracy: Estimate | None


class WithoutSeries(Part):
    """The test images not taken within seconds of a training image; there may be none left."""

    num_in_series: PositiveInt
    accuracy: Estimate | None


class SetFigures(Part):
    """Results on test images of class sets promised to contain the true class in a share `promised` of cases.

    `covered` is the share of images whose set did, `per_class` the same for each class; `size` is the mean number of
    classes in a set, and `single` the share of sets with one class. Of kept promises, 2.5 % measure less than `least`.
    """

    promised: Fraction
    least: Fraction | None = None  # not recorded before this was measured
    covered: Estimate
    size: PositiveFloat
    single: Fraction
    per_class: tuple[Estimate, ...]


class AnsweredFigures(Part):
    """Results on test images of which a share `promised` was to be answered: the share that was, and accuracies.

    An accuracy is absent if there are no such images; `least` is as in `SetFigures`.
    """

    promised: Fraction
    least: Fraction | None = None
    answered: Estimate
    accuracy: Estimate | None
    accuracy_of_others: Estimate | None


class SplitFigures(Figures):
    """A split's metrics, and on request those with test-time augmentation.

    The test split also has metrics without copies, unless it is too large to compare with the training images, without
    series if there are any, and the results of any promises.
    """

    test_time_augmentation: AugmentedFigures | None = None
    without_copies: WithoutCopies | None = None  # older versions did not look for copies
    without_series: WithoutSeries | None = None
    class_sets: tuple[SetFigures, ...] = ()
    answered: AnsweredFigures | None = None


class OtherData(Part):
    """`evaluation-NAME.json`: a run's network on labelled images that are not its own test split.

    `own` is the accuracy on the run's test images of the same classes, `change` the accuracy here minus `own`; both are
    absent if the test split has not been evaluated. If images pair, both are over the `num_paired` pairs.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    recipe: str
    evaluated: str  # ISO 8601, UTC
    data: DataSet
    is_whole: bool  # training and test images together, for data without splits of its own
    num_learned: NonNegativeInt = 0  # images whose files the run has learned from or held out
    classes: tuple[str, ...]  # of the network
    absent: tuple[str, ...]  # classes of the network that the data lacks
    figures: Figures
    own: Estimate | None = None
    change: Estimate | None = None
    num_paired: NonNegativeInt = 0


# ---- what a fitted run adds


class Candidate(Part):
    """A candidate that `fit` considered: its out-of-fold result on the training images, or why it was left out.

    With `trained`, that network's logits are blended with the frozen one's, weighted by `share`, and the candidate was
    judged on `num_held_out` images that neither network was fitted on. `log_loss` is the plain cross-entropy.
    """

    network: str
    image_size: PositiveInt
    resize: Resizing = "squeeze"
    head: LinearHead | None = None  # None if it was left out
    accuracy: Estimate | None = None
    log_loss: float | None = None
    seconds: NonNegativeFloat = 0.0  # without computing the features
    trained: Recipe | None = None
    share: Fraction | None = None
    num_held_out: PositiveInt | None = None
    left_out: str | None = None  # why, or what would have taken too long
    would_take: NonNegativeFloat | None = None  # seconds
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
        """The images on which the accuracy was measured."""
        if self.num_held_out is None:
            return say("out of folds")
        return say("on {images}", images=counted(self.num_held_out, "held-out image"))

    @property
    def why_left_out(self) -> str:
        """Why it was left out; empty if it was not."""
        if self.left_out is None:
            return ""
        if self.would_take is None:
            what, joint, why = self.left_out.partition(": ")
            return f"{say(what)}{joint}{why}"
        time = duration(self.would_take)
        return say("{what} would take about {time}, more than was left", what=say(self.left_out), time=time)


class Candidates(Part):
    """`candidates.json`, written by `fit`: the candidates in the order tried, within the given minutes."""

    schema_version: Literal[1] = SCHEMA_VERSION
    minutes: PositiveFloat
    seconds: NonNegativeFloat  # actually spent
    candidates: tuple[Candidate, ...]


# ---- what an extended run adds


class PriorPoint(Part):
    """Validation metrics at one strength of prior correction."""

    tau: Fraction
    accuracy: Estimate
    macro_precision: Estimate
    macro_recall: Estimate
    macro_f1: Estimate


class PriorChoice(Part):
    """`prior.json`, written by `extend`: how much of the data's prior is removed from the logits, and why.

    `tau` is 0 for none and 1 for all of it. It is the value with the best macro F1 on the validation images, or 0 where
    `fusion` has too few of a class to choose by; without old validation images it is 1 and the curve is empty.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    tau: Fraction
    curve: tuple[PriorPoint, ...]
    strength: float | None = None  # of the head's regularization, if chosen on the same images

    @property
    def is_flat(self) -> bool:
        """Whether every tau is as good as any other."""
        return len({point.macro_f1.value for point in self.curve}) == 1

    @property
    def best(self) -> float:
        """The best macro F1 of all tau."""
        return max(point.macro_f1.value for point in self.curve)

    @property
    def is_best(self) -> bool:
        """Whether no other tau has a better macro F1; if one has, there were too few validation images to choose by."""
        return any(point.tau == self.tau and point.macro_f1.value == self.best for point in self.curve)


class OldClass(Part):
    """Recall of an old class on the test split, before and after the extension."""

    before: Estimate
    after: Estimate


class Errors(Part):
    """Misclassified test images of a new class: the class they were mistaken for, and their share."""

    mistaken_for: str
    share: Estimate


class NewClass(Part):
    """A new class's test metrics, the share of its images taken for old classes, and its errors by frequency."""

    figures: ClassFigures
    taken_for_old: Estimate
    errors: tuple[Errors, ...]


class ExtensionFigures(Part):
    """Effect of an extension on the test split; classes are in the evaluation's order, old ones first.

    `old_before` is the base among its own classes, `old_after` the extended network among all classes, both on the old
    classes' images.
    """

    method: Method
    num_old: PositiveInt
    old_before: Estimate
    old_after: Estimate
    old_change: Estimate  # after minus before, with a paired interval
    new_macro_f1: Estimate
    old_classes: tuple[OldClass, ...]
    new_classes: tuple[NewClass, ...]
    prior: PriorChoice


# ---- the whole


class Evaluation(Part):
    """Results of `evaluate`, as stored in `evaluation.json`: every metric in the report.

    Log loss and calibration error have bootstrap intervals; see `reslab.measure.intervals` for the others.

    Attributes
    ----------
    classes : tuple of str
        The names of the K classes.
    confidence : float
        Confidence level of the intervals, in (0, 1).
    splits : dict of str to SplitFigures
        For each split: accuracy, balanced accuracy, macro precision, recall and F1, log loss in nats, calibration
        error, metrics per class, and the confusion matrix (K, K).
    calibration : Calibration or None
        The temperature built into the weights and what it was fitted on; None if they are not calibrated.
    extension : ExtensionFigures or None
        What an extended run has gained and lost, if its test split is evaluated.

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
