"""A run that was extended by hand: three digits of a trained base, and two new ones, in a head set by least squares."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from reslab.data.load import load
from reslab.data.recipe_data import describe_data
from reslab.network.network import Network
from reslab.recipe.recipe import Extension, derive
from reslab.records import Estimate, PriorChoice, PriorPoint
from reslab.runs import Run, pack_weights, read_weights

DATA = "digits:1,4,7@40+digits:2,3@20"


@pytest.fixture(scope="session")
def prior() -> PriorChoice:
    """A choice among three strengths, with made-up figures."""
    figures = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
    values = {0.0: 0.7, 0.5: 0.8, 1.0: 0.75}
    curve = tuple(
        PriorPoint(tau=tau, **{name: Estimate(value=value, low=value - 0.1, high=value + 0.1) for name in figures})
        for tau, value in values.items()
    )
    return PriorChoice(tau=0.5, curve=curve)


@pytest.fixture
def extended(finished: Run, prior: PriorChoice, tmp_path: Path) -> Run:
    """An extended run that is not evaluated yet."""
    base = finished.weights_path.read_bytes()
    extension = Extension(method="frozen", base=hashlib.sha256(base).hexdigest(), num_old=3)
    run = Run.create(tmp_path / "extended")
    run.write_recipe(derive(finished.recipe, name="more", data=DATA, validation=0, extension=extension))
    images = load(DATA, "train", image_size=8)
    run.write_environment(finished.environment.model_copy(update={"data": (describe_data(images),)}))
    network = Network.load(finished.path)
    features = network.features(images.images).numpy()
    with_one = np.hstack([features, np.ones((len(features), 1))])
    head = np.linalg.lstsq(with_one, 10 * np.eye(5)[images.labels.numpy()], rcond=None)[0].T.astype(np.float32)
    tensors = read_weights(finished.path)[0] | {"head.weight": head[:, :-1], "head.bias": head[:, -1]}
    run.write_weights(pack_weights(tensors, network.metadata.model_copy(update={"classes": images.classes})))
    run.write_base(base)
    run.write_prior(prior)
    return run
