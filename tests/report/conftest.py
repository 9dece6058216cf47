"""Synthetic but complete run folders: every file that a report reads, without training anything."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reslab.evaluation.promises import measure_answered, measure_class_sets
from reslab.measure.class_sets import fit_class_sets
from reslab.measure.metrics import softmax
from reslab.recipe.recipe import Recipe, Standardize, parse_recipe
from reslab.records import (
    AugmentedFigures,
    ClassFigures,
    DataSet,
    Environment,
    Epoch,
    Errors,
    Estimate,
    Evaluation,
    ExtensionFigures,
    Figures,
    NewClass,
    OldClass,
    PriorChoice,
    PriorPoint,
    SplitFigures,
    SplitName,
    Weights,
)
from reslab.report import figures, interactive, write_report
from reslab.runs import (
    Doubts,
    Examples,
    Familiarities,
    Features,
    GalleryImages,
    HeatMaps,
    Predictions,
    Run,
    pack_weights,
    write_exhibit,
)

THREE = ("ant", "bee", "<script>alert(1)</script>")
TWELVE = tuple(f"kind {number}" for number in range(1, 13))


@dataclass(frozen=True, kw_only=True)
class Case:
    """What differs between the synthetic runs."""

    classes: tuple[str, ...] = THREE
    num_images: int = 240  # of the test split
    skill: float = 2.0  # how far the true class's logit lies above the others
    epochs: int = 6
    validation: bool = False
    views: int | None = None
    command: str = "reslab train synthetic --out run"
    chance: int = 1  # decides the answers; the test images and their labels stay the same
    num_old: int | None = None  # of an extended run
    looked_at: bool = False  # whether evaluation kept images, features, heat maps and doubts
    recipe: dict[str, Any] = field(default_factory=dict)


def build_recipe(**changes: Any) -> Recipe:
    plain = {
        "name": "synthetic",
        "source": "made by the tests",
        "published": {"low": 0.7, "high": 0.72, "source": "Somebody et al. 2020, table 3"},
        "data": "npz:somewhere",
        "model": {"kind": "preact_resnet", "depth": 8},
        "augment": [{"kind": "flip"}, {"kind": "crop", "pixels": 4}],
        "optimizer": {"kind": "sgd", "peak_lr": 0.1, "weight_decay": 0.0002},
        "schedule": {"kind": "steps", "at": [3, 5]},
        "epochs": 6,
        "batch_size": 32,
    }
    return parse_recipe(plain | changes, where="the tests")


def write_run(path: Path, case: Case) -> Run:
    generator = np.random.default_rng(case.chance)
    run = Run.create(path)
    run.write_recipe(build_recipe(**{"epochs": case.epochs} | case.recipe))
    run.write_environment(make_environment(case.command))
    for number in range(1, case.epochs + 1):
        run.append_log(make_epoch(number, case))
    standardize = Standardize(mean=(125.5, 122.25, 113.0), std=(63.0, 62.0, 66.5))
    weights = Weights(model=run.recipe.model, classes=case.classes, channels=3, image_size=8, standardize=standardize)
    # 29 parameters, and what is none.
    tensors: dict[str, NDArray[Any]] = {
        "head.weight": np.ones((3, 8), np.float32),
        "norm.weight": np.ones(5, np.float32),
    }
    state: dict[str, NDArray[Any]] = {
        "norm.running_mean": np.zeros(5, np.float32),
        "norm.num_batches_tracked": np.zeros((), np.int64),
    }
    run.write_weights(pack_weights(tensors | state, weights))
    write_evaluation(run, case, generator)
    return run


def make_environment(command: str) -> Environment:
    data = (DataSet(expression="npz:somewhere", split="train", num_images=1200, fingerprint="ab" * 32),)
    words: dict[str, Any] = {"platform": "Linux-6", "processor": "a processor", "device": "cpu", "command": command}
    versions: dict[str, Any] = {"reslab": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "numpy": "2.4.6"}
    started = "2026-01-02T03:04:05+00:00"
    return Environment(
        **versions, **words, threads=2, precision="bfloat16", commit="c0ffee", seed=7, started=started, data=data
    )


def make_epoch(number: int, case: Case) -> Epoch:
    held_out = {"validation_loss": 1.1 / number + 0.1, "validation_accuracy": 1 - 0.6 / number}
    return Epoch(
        epoch=number,
        updates=38 * number,
        seconds=20.5,
        images_per_second=1000.0 + number,
        learning_rate=0.1 * 0.1 ** ((number > case.epochs * 0.5) + (number > case.epochs * 0.8)),
        train_loss=1.2 / number,
        train_accuracy=1 - 0.5 / number,
        **(held_out if case.validation else {}),
    )


# ---- evaluation, by the plain definitions and with made-up intervals of 0.02 to each side


def write_evaluation(run: Run, case: Case, generator: np.random.Generator) -> None:
    predictions = draw_predictions(case, generator)
    run.write_predictions("test", predictions)
    run.write_examples("test", draw_examples(predictions, generator))
    promises: dict[str, Any] = {}
    train, better = draw_predictions(case, generator), draw_predictions(case, generator)
    if case.looked_at:
        run.write_predictions("train", train)
        write_gallery(run, predictions, train, generator)
        known = Familiarities(generator.random(case.num_images).astype(np.float32))
        write_exhibit(run.path, "test", known)
        sets = fit_class_sets(softmax(train.logits), train.labels)
        promises = {"answered": measure_answered(predictions, known)}
        promises["class_sets"] = measure_class_sets(predictions, sets)
    splits: dict[SplitName, SplitFigures] = {}
    both: dict[SplitName, Predictions] = {"train": train, "test": predictions}
    for name, plain in both.items():
        augmented = AugmentedFigures(views=case.views, figures=measure(better)) if case.views else None
        kept = promises if case.looked_at and name == "test" else {}
        splits[name] = SplitFigures(**dict(measure(plain)), test_time_augmentation=augmented, **kept)
    evaluation = Evaluation(
        recipe=run.recipe.name,
        evaluated="2026-01-03T00:00:00+00:00",
        confidence=0.95,
        bootstrap_resamples=1000,
        classes=case.classes,
        splits=splits,
    )
    if case.num_old:
        evaluation = evaluation.model_copy(update={"extension": make_extension(evaluation, case.num_old)})
    run.write_evaluation(evaluation)


def make_extension(evaluation: Evaluation, num_old: int) -> ExtensionFigures:
    """Make up what an extended run says beside the figures of its test split; the best tau is 0.25."""
    per_class = evaluation.splits["test"].per_class
    figures = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
    curve = [
        PriorPoint(tau=tau, **{name: about(0.8 - 0.2 * (tau - 0.25) ** 2 - i / 50) for i, name in enumerate(figures)})
        for tau in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    errors = tuple(Errors(mistaken_for=evaluation.classes[label], share=about(0.2 - 0.05 * label)) for label in (0, 1))
    return ExtensionFigures(
        method="finetune-distill",
        num_old=num_old,
        old_before=about(0.95),
        old_after=about(0.94),
        old_change=Estimate(value=-0.01, low=-0.03, high=0.002),
        new_macro_f1=about(0.654),
        old_classes=tuple(OldClass(before=about(0.9), after=each.recall) for each in per_class[:num_old]),
        new_classes=tuple(
            NewClass(figures=each, taken_for_old=about(0.333), errors=errors) for each in per_class[num_old:]
        ),
        prior=PriorChoice(tau=0.25, curve=tuple(curve)),
    )


def draw_predictions(case: Case, generator: np.random.Generator) -> Predictions:
    labels = np.random.default_rng(0).integers(len(case.classes), size=case.num_images)
    logits = generator.normal(size=(case.num_images, len(case.classes)))
    logits[np.arange(case.num_images), labels] += case.skill
    return Predictions(logits.astype(np.float32), labels)


def draw_examples(predictions: Predictions, generator: np.random.Generator) -> Examples:
    probabilities = np.exp(predictions.logits) / np.exp(predictions.logits).sum(1, keepdims=True)
    wrong = np.flatnonzero(predictions.logits.argmax(1) != predictions.labels)
    wrong = wrong[np.argsort(-probabilities[wrong].max(1))]
    return Examples(wrong, generator.integers(256, size=(len(wrong), 3, 8, 8)).astype(np.uint8))


def write_gallery(run: Run, test: Predictions, train: Predictions, generator: np.random.Generator) -> None:
    """Keep every third image of both splits; the label that is doubted most is that of the first one kept."""
    both: dict[SplitName, Predictions] = {"test": test, "train": train}
    for split, predictions in both.items():
        kept = np.arange(0, len(predictions.labels), 3)
        write_exhibit(
            run.path, split, GalleryImages(kept, generator.integers(256, size=(len(kept), 3, 8, 8)).astype(np.uint8))
        )
    right = test.logits.argmax(1) == test.labels
    kept = np.arange(0, len(test.labels), 3)
    looked = np.concatenate([kept[right[kept]][:2], kept[~right[kept]][:3]])
    write_exhibit(run.path, "test", Features(kept[:60], generator.normal(size=(60, 5)).astype(np.float32)))
    write_exhibit(run.path, "test", HeatMaps(looked, generator.integers(256, size=(5, 4, 4)).astype(np.uint8)))
    write_exhibit(run.path, "test", Doubts(np.array([0, 9, 3]), np.array([0.01, 0.02, 0.03], np.float32)))


def measure(predictions: Predictions) -> Figures:
    logits, labels = predictions
    num_classes, predicted = logits.shape[1], logits.argmax(1)
    matrix = [[int(((labels == i) & (predicted == j)).sum()) for j in range(num_classes)] for i in range(num_classes)]
    recalls = [matrix[i][i] / max(sum(matrix[i]), 1) for i in range(num_classes)]
    precisions = [matrix[i][i] / max(sum(row[i] for row in matrix), 1) for i in range(num_classes)]
    f1s = [2 * p * r / (p + r or 1) for p, r in zip(precisions, recalls, strict=True)]
    per_class = [
        ClassFigures(precision=about(p), recall=about(r), f1=about(f), support=sum(row))
        for p, r, f, row in zip(precisions, recalls, f1s, matrix, strict=True)
    ]
    return Figures(
        num_images=len(labels),
        accuracy=about(float((predicted == labels).mean())),
        balanced_accuracy=about(float(np.mean(recalls))),
        macro_precision=about(float(np.mean(precisions))),
        macro_recall=about(float(np.mean(recalls))),
        macro_f1=about(float(np.mean(f1s))),
        log_loss=about(0.4321),
        expected_calibration_error=about(0.0345),
        top5_accuracy=about(0.987) if num_classes > 10 else None,
        per_class=tuple(per_class),
        confusion_matrix=tuple(map(tuple, matrix)),
    )


def about(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.02, high=value + 0.02)


RICH = Case(
    num_images=600,
    validation=True,
    views=2,
    looked_at=True,
    command="reslab train synthetic --out run --set optimizer.peak_lr=0.1",
    recipe={"data": "cifar10", "schedule": {"kind": "linear", "warmup": 0.2}, "validation": 200},
)
LEAN = Case(classes=TWELVE, recipe={"published": None})
TAUGHT = Case(
    classes=(*TWELVE, "a lizard", "eft", "<b>snake</b>"),
    num_images=900,
    num_old=12,
    skill=2.5,
    recipe={
        "published": None,
        "data": "npz:somewhere+npz:elsewhere@20",
        "model": {"kind": "fast_conv"},
        "augment": [{"kind": "flip", "alternate": True}, {"kind": "crop", "pixels": 2, "fill": "reflect"}],
        "optimizer": {"kind": "muon", "head_lr": 1.5, "bias_lr": 0.25, "decay": 0.004},
        "schedule": {"kind": "linear"},
        "label_smoothing": 0.2,
        "logit_adjustment": 0.5,
        "freeze": [{"parameters": "stem", "epoch": 3}],
        "batch_size": 2000,
        "micro_batch_size": 250,
        "sampling": {"images_per_epoch": 1200, "balance": 0.75},
        "extension": {
            "method": "finetune-distill",
            "base": "ba5e" * 16,
            "num_old": 12,
            "old_data": 50,
            "merge": True,
            "backbone_lr": 0.4,
            "distill": 0.5,
        },
    },
)


# ---- reading a page


class Page(HTMLParser):
    """A page taken apart: tags, and by section its text, tables and images."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text = {"": ""}
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.images: dict[str, list[dict[str, Any]]] = {}
        self.scripts: list[str] = []
        self.open, self.in_cell, self.in_script = [""], False, False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "section":
            self.open.append(dict(attributes)["id"])
        elif tag == "img":
            self.images.setdefault(self.open[-1], []).append(dict(attributes))
        elif tag == "script":
            self.in_script = True
            self.scripts.append("")
        elif tag == "table":
            self.tables.setdefault(self.open[-1], []).append([])
        elif tag == "tr":
            self.tables[self.open[-1]][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self.open[-1]][-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self.open.pop()
        elif tag == "script":
            self.in_script = False
        elif tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data: str) -> None:
        if self.in_script:
            self.scripts[-1] += data
            return
        section = self.open[-1]
        words = data.replace("\u00a0", " ")
        self.text[section] = self.text.get(section, "") + words
        if self.in_cell:
            row = self.tables[section][-1][-1]
            row[-1] = f"{row[-1]} {words.strip()}".strip()


# ---- fixtures


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    """Make a recipe that differs from the plain one in the given fields."""
    return build_recipe


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Write a synthetic run that differs from the plain one in the given ways."""
    return lambda name="run", **changes: write_run(tmp_path / name, Case(**changes))


@pytest.fixture(scope="session")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A reported run of three classes with everything that a report can show, on CIFAR-10 as it says."""
    run = write_run(tmp_path_factory.mktemp("rich") / "run", RICH)
    write_report(run)
    return run


@pytest.fixture(scope="session")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A reported run of twelve classes: nothing held out, nothing published, one view, steps of the rate."""
    run = write_run(tmp_path_factory.mktemp("lean") / "run", LEAN)
    write_report(run)
    return run


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A reported run of a network that knew twelve classes and was taught three, beside another one like it."""
    folder = tmp_path_factory.mktemp("taught")
    run = write_run(folder / "run", TAUGHT)
    write_report(run, against=write_run(folder / "frozen", replace(TAUGHT, skill=2.0, chance=2)))
    return run


@pytest.fixture(scope="session")
def read_page() -> Callable[[Path], Page]:
    """Read a page and take it apart."""
    return lambda path: Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def rich_page(rich: Run, read_page: Callable[[Path], Page]) -> Page:
    return read_page(rich.path / "report.html")


@pytest.fixture(scope="session")
def lean_page(lean: Run, read_page: Callable[[Path], Page]) -> Page:
    return read_page(lean.path / "report.html")


@pytest.fixture(scope="session")
def taught_page(taught: Run, read_page: Callable[[Path], Page]) -> Page:
    return read_page(taught.path / "report.html")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing of figures, which takes most of a report's time."""
    png = figures.thumbnail(np.zeros((1, 2, 2), np.uint8))
    monkeypatch.setattr(figures, "_png", lambda figure: png)
    monkeypatch.setattr(interactive, "PLOTLY", "page.js")
