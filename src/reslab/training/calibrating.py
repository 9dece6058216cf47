"""Calibration of a run trained on all images, by a twin that holds some out.

A network is more confident on images that it was trained on, so these cannot calibrate it. The twin is the same recipe
with the same seed, trained again without some of the images.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from reslab.data.recipe_data import naming_lost_data, recipe_here
from reslab.errors import UserError
from reslab.machine.device import pick_device
from reslab.network.finishing import divide
from reslab.network.network import Network
from reslab.recipe.recipe import Recipe, derive
from reslab.records import Calibration
from reslab.runs import Run, read_weights
from reslab.runs.files import read_safetensors, to_safetensors
from reslab.runs.folder import MEMORY_BASE
from reslab.training.environment import keep_precision
from reslab.training.session import resume, train
from reslab.words import listing

HELD_OUT, MOST_HELD_OUT = 0.1, 5000  # share of the training images, and maximum number
OWN = {"name", "source", "published", "validation", "trial"}  # fields in which a twin's recipe may differ


class Where(NamedTuple):
    """Options for training a twin: device, data and permissions."""

    device: str = "auto"
    data_dir: Path | None = None
    allow_remote: bool = False
    silent: bool = True


def calibrate(
    run: Run,
    *,
    twin: Run | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
    silent: bool = True,
) -> Calibration:
    """Calibrate a finished run that holds no images out, using a twin that does.

    Predicted classes stay the same; only probabilities change. An existing evaluation is removed, since it describes
    the old probabilities. The test split is not read.

    Parameters
    ----------
    run : Run
        The finished run, trained on all images.
    twin : Run, optional
        A finished run of the same recipe that holds images out. Without one, it is trained as a trial beside the run,
        in `RUN-twin`, with a tenth of the images held out, at most 5,000. That takes as long as the run itself did; an
        interrupted twin is resumed.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether to allow contacting other machines named in the run's recipe.
    silent : bool, default True
        Whether to hide the progress of training.

    Returns
    -------
    Calibration
        The temperature, which is now built into the weights, and what it was fitted on.

    Raises
    ------
    UserError
        If the run is not finished, is calibrated already, holds images out itself or was not trained from scratch;
        or if the twin has another recipe or could not be calibrated.

    Examples
    --------
    >>> import reslab
    >>> digits = reslab.find_recipe("digits-quick")
    >>> recipe = reslab.derive(digits, name="all", validation=0, epochs=1)
    >>> run = reslab.train(recipe, out="runs/all")
    >>> found = reslab.calibrate(run)
    >>> found.num_images, found.twin
    (144, 'all-twin')
    """
    _check(run)
    if twin is None:
        with naming_lost_data(run, data_dir=data_dir):
            found = _train_twin(run, Where(device, data_dir, allow_remote, silent))
    else:
        found = twin
    calibration = _read_temperature(found, like=recipe_here(run, data_dir=data_dir), data_dir=data_dir)
    with run.locked():
        _check(run)  # again, since a twin takes long
        network = divide(Network.load(run.path, device="cpu"), by=calibration)
        content = network.to_bytes()
        run.remove_evaluation()  # before the weights, because it must never describe other weights
        _keep_memory(run, of=hashlib.sha256(content).hexdigest())
        run.write_weights(content)
    return calibration


def _keep_memory(run: Run, *, of: str) -> None:
    """Attribute a run's memory to its coming weights, whose features are the same."""
    if run.memory_path.exists():
        tensors, metadata = read_safetensors(run.memory_path)
        if metadata.get(MEMORY_BASE) == run.weights_digest:
            run.write_memory(to_safetensors(tensors, metadata | {MEMORY_BASE: of}))


def _check(run: Run) -> None:
    recipe, known = run.recipe, read_weights(run.path)[1].calibration
    if known is not None:
        raise UserError(f"{run.path} is calibrated already: {known.words}")
    if recipe.validation:
        raise UserError(
            f"{run.path} holds out {recipe.validation:,} images itself, which were too few to calibrate it by: train "
            "it again with a larger validation"
        )
    if recipe.extension is not None or recipe.imported is not None:
        how = "extended" if recipe.extension is not None else "imported"
        raise UserError(f"{run.path} was {how}, so no recipe alone makes its twin: hold images out when you train")


def _train_twin(run: Run, where: Where) -> Run:
    recipe, own = recipe_here(run, data_dir=where.data_dir), Path(os.path.abspath(run.path))  # "." has no name
    path = own.with_name(f"{own.name}-twin")
    if recipe.start is not None:
        raise UserError(
            f"{run.path} started from {recipe.start.file}: train its twin from that file with --from and validation, "
            "then give it with --twin"
        )
    if Run.is_at(path):
        begun = Run.open(path)
        _check_alike(begun, like=recipe, data_dir=where.data_dir)
        return resume(path, **where._asdict())
    used = run.environment.used("train")
    assert used is not None
    num = min(MOST_HELD_OUT, round(HELD_OUT * used.num_images))
    return train(
        derive(recipe, name=recipe.name, validation=num, trial=True),
        out=path,
        seed=run.environment.seed,
        precision=keep_precision(run.environment, device=pick_device(where.device)),
        deterministic=run.environment.deterministic,
        **where._asdict(),
    )


def _read_temperature(twin: Run, *, like: Recipe, data_dir: Path | None) -> Calibration:
    _check_alike(twin, like=like, data_dir=data_dir)
    found = read_weights(twin.path)[1].calibration
    if found is None or found.num_images is None or found.twin is not None:
        raise UserError(
            f"{twin.path} has no temperature of its own: it needs held-out images of every class, and five mistakes "
            "among them; train a twin with a larger validation and give it with --twin"
        )
    return found.model_copy(update={"twin": twin.name})


def _check_alike(twin: Run, *, like: Recipe, data_dir: Path | None) -> None:
    own = recipe_here(twin, data_dir=data_dir)
    different = [name for name in Recipe.model_fields if name not in OWN and getattr(own, name) != getattr(like, name)]
    if different:
        raise UserError(
            f"{twin.path} is not a twin, its recipe has another {listing(different)}: give one of the same recipe"
        )
