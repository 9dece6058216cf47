"""Samples of what a run folder holds, and ways to break what is written and read."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Standardize
from reslab.recipe.shipped import RECIPES
from reslab.records import (
    AugmentedFigures,
    ClassFigures,
    DataSet,
    Environment,
    Epoch,
    Estimate,
    Evaluation,
    Figures,
    SplitFigures,
    Weights,
)
from reslab.runs import Examples, Predictions, Run

HALF = Estimate(value=0.5, low=0.25, high=0.75)
FIGURES = Figures(
    num_images=4,
    accuracy=HALF,
    balanced_accuracy=HALF,
    macro_precision=HALF,
    macro_recall=HALF,
    macro_f1=HALF,
    log_loss=HALF,
    expected_calibration_error=HALF,
    per_class=(ClassFigures(precision=HALF, recall=HALF, f1=HALF, support=4),) * 2,
    confusion_matrix=((1, 1), (1, 1)),
)
EVALUATION = Evaluation(
    recipe="lab",
    evaluated="2025-01-02T03:04:05+00:00",
    confidence=0.95,
    bootstrap_resamples=100,
    classes=("Käfer", "猫"),
    splits={
        "train": SplitFigures(**dict(FIGURES)),
        "test": SplitFigures(**dict(FIGURES), test_time_augmentation=AugmentedFigures(views=2, figures=FIGURES)),
    },
)
ENVIRONMENT = Environment(
    reslab="0.1.0",
    python="3.11.2",
    torch="2.13.0",
    numpy="2.4.6",
    platform="Linux",
    processor="x86-64",
    device="cpu",
    threads=2,
    command="reslab train lab",
    commit=None,
    seed=0,
    started="2025-01-02T03:04:05+00:00",
    data=(DataSet(expression="digits", split="train", num_images=4, fingerprint="ab"),),
)
WEIGHTS = Weights(
    model=PreActResNet(depth=8),
    classes=("Käfer", "猫"),
    channels=1,
    image_size=8,
    standardize=Standardize(mean=(1.5,), std=(2.5,)),
)


def make_epoch(number):
    return Epoch(
        epoch=number,
        updates=10 * number,
        seconds=1.5,
        images_per_second=100,
        learning_rate=0.1,
        train_loss=1 / number,
        train_accuracy=0.5,
    )


def make_tensors(seed=0):
    """Every type that a state holds, a single number, an empty tensor and one that is not contiguous among them."""
    random = np.random.default_rng(seed)
    return {
        "kernel": random.normal(size=(3, 4)).astype(np.float32),
        "across": random.normal(size=(4, 3)).astype(np.float32).T,
        "count": np.array(7 + seed),
        "empty": np.zeros((0, 2), np.float32),
        "generator": random.integers(0, 256, 16, dtype=np.uint8),
        "half": random.normal(size=5).astype(np.float16),
        "warm": np.array([True, False]),
    }


def assert_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert (tensors[name].dtype, tensors[name].shape) == (value.dtype, value.shape), name
        np.testing.assert_array_equal(tensors[name], value)


def listing(folder):
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_predictions(seed=0):
    random = np.random.default_rng(seed)
    return Predictions(random.normal(size=(20, 4)).astype(np.float32), random.integers(0, 4, 20))


def make_examples(seed=0):
    random = np.random.default_rng(seed)
    return Examples(random.permutation(5), random.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8))


class HalfWritten:
    """A file on a disk that fills up in the middle of a write."""

    def __init__(self, file, error):
        self.file, self.error = file, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        raise self.error


def break_step(monkeypatch, step, error):
    """Let one step of every write fail."""

    def fail(*_, **__):
        raise error

    real_open = Path.open
    match step:
        case "open":
            monkeypatch.setattr(Path, "open", fail)
        case "write":
            monkeypatch.setattr(Path, "open", lambda self, mode: HalfWritten(real_open(self, mode), error))
        case _:
            monkeypatch.setattr(os, step, fail)


def flip(path, offset, *, bits=1):
    content = bytearray(path.read_bytes())
    content[offset] ^= bits
    path.write_bytes(content)


@pytest.fixture(scope="session")
def sample():
    """Hand the samples and functions above to the tests, which cannot import them from here."""
    return SimpleNamespace(
        assert_same=assert_same,
        break_step=break_step,
        environment=ENVIRONMENT,
        epoch=make_epoch,
        evaluation=EVALUATION,
        examples=make_examples,
        flip=flip,
        listing=listing,
        predictions=make_predictions,
        tensors=make_tensors,
        weights=WEIGHTS,
    )


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run")
    run.write_recipe(RECIPES["digits-quick"])
    return run
