"""A run begun, and one gone on with: what is checked and recorded before the first update."""

from pathlib import Path

from reslab.data import ImageSet
from reslab.data.recipe_data import describe_data, read_split
from reslab.errors import UserError
from reslab.models.device import pick_device
from reslab.recipe import Recipe
from reslab.records import SplitName
from reslab.runs import Run
from reslab.training.compiling import read_compile
from reslab.training.determinism import check_same_machine, strictly
from reslab.training.environment import describe_environment
from reslab.training.loop import EVERY_EPOCH, Trainer
from reslab.training.safety import Safety


def train(
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | None = None,
    silent: bool = True,
    safety: Safety = EVERY_EPOCH,
    compile: str = "auto",
    deterministic: bool = False,
) -> Run:
    """Train a network from scratch into the new run folder `out`.

    `deterministic` allows only algorithms that repeat to the bit, also on a GPU, and no compiled network.
    Raises: UserError where the recipe, the data or the folder do not allow it; Failure where the loss is not finite,
    the disk refuses or somebody interrupts.
    """
    chosen = pick_device(device)
    if deterministic and compile == "on":
        raise UserError("--deterministic trains without compiled code, whose order of sums may be chosen by time")
    compiled = read_compile(compile, device=chosen)
    splits = _read_splits(recipe, data_dir)
    environment = describe_environment(
        device=chosen,
        seed=seed,
        data=tuple(map(describe_data, splits)),
        compiled="no" if deterministic else compiled,
        deterministic=deterministic,
    )
    run = Run.create(out)
    with run.locked(), strictly(deterministic):
        run.write_environment(environment)
        run.write_recipe(recipe)
        return Trainer(run, splits, seed=seed, device=chosen, silent=silent, safety=safety).train()


def resume(
    path: Path | str,
    *,
    device: str = "auto",
    data_dir: Path | None = None,
    silent: bool = True,
    safety: Safety = EVERY_EPOCH,
) -> Run:
    """Go on with the run in `path` from its newest checkpoint, or from the start where there is none yet.

    Raises: UserError where the folder holds no run, another process works on it, its data has changed or its
    checkpoints are corrupt; as `train`.
    """
    run = Run.open(path)
    if run.recipe.extension is not None:
        raise UserError(f"{path} is an extension: go on with reslab extend --resume {path}")
    if run.is_finished:
        return run
    recorded, chosen = run.environment, pick_device(device)
    if recorded.deterministic:
        check_same_machine(recorded, describe_environment(device=chosen, seed=0, data=()))
    with run.locked(), strictly(recorded.deterministic):
        run.drop_parts()
        splits = _read_splits(run.recipe, data_dir)
        # What an evaluation has added to the record is none of training's business.
        if tuple(map(describe_data, splits)) != tuple(data for data in recorded.data if data.split != "test"):
            raise UserError(
                f"the data of {path} has changed since it was begun: its fingerprint differs, so train anew"
            )
        trainer = Trainer(run, splits, seed=recorded.seed, device=chosen, silent=silent, safety=safety)
        return trainer.catch_up().train()


def _read_splits(recipe: Recipe, data_dir: Path | None) -> tuple[ImageSet, ...]:
    names: tuple[SplitName, ...] = ("train", "validation") if recipe.validation else ("train",)
    splits = tuple(read_split(recipe, name, data_dir=data_dir) for name in names)
    channels = splits[0].images.shape[1]
    if recipe.standardize is not None and len(recipe.standardize.mean) != channels:
        raise UserError(
            f"recipe {recipe.name} standardises {len(recipe.standardize.mean)} channels but {recipe.data} has "
            f"{channels}: add --set standardize=null, which takes mean and deviation from the training images"
        )
    return splits
