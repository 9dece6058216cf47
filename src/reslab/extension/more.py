"""Continued training on more pictures of known classes: all layers, by the run's recipe at a lower rate."""

from pathlib import Path

from reslab.data.check.problems import SplitReading, naming_all_problems
from reslab.data.expression import join_expressions
from reslab.data.framing import Form
from reslab.data.load import load
from reslab.data.recipe_data import naming_lost_data, read_split, recipe_here
from reslab.errors import UserError
from reslab.extension.methods import RESET, channels_of, limit_length, num_held_out, slower
from reslab.extension.planning import check_new
from reslab.recipe.networks import Fusion
from reslab.recipe.recipe import LinearHead, Recipe, StartingWeights, derive
from reslab.records import Weights
from reslab.report.words import MORE
from reslab.runs import Run
from reslab.training.seen import are_redrawn


def knows_all(weights: Weights, data: str, *, data_dir: Path | None, skip_damaged: bool) -> bool:
    """Return whether all classes of `data` are known to the network."""
    channels = channels_of(weights)
    form = Form(weights.image_size, channels=channels)
    with naming_all_problems(data, SplitReading(("train",), form, skip_damaged, data_dir)):
        images = load(data, "train", **form._asdict(), data_dir=data_dir, skip_damaged=skip_damaged)
    return set(images.classes) <= set(weights.classes)


def plan_more(
    run: Run, weights: Weights, *, data: str, old_data: str | int, skip_damaged: bool, data_dir: Path | None
) -> Recipe:
    """Derive the recipe for continued training of a run with more pictures of its classes.

    An extension is trained as its first base was, since its own recipe may be for a head alone.
    Raises: UserError if its network or the options do not allow it.
    """
    base = run.recipe
    if isinstance(base.optimizer, LinearHead) or isinstance(base.model, Fusion):
        raise UserError(
            f"{run.path} is a head on a pretrained network's features, which is not trained but solved: put all "
            "pictures into one folder and run reslab fit again"
        )
    if old_data == "none":
        raise UserError("--old-data none would have it forget what it knows: give all or a number")
    limit = None if old_data == "all" else int(old_data)
    old = recipe_here(run, data_dir=data_dir).data
    check_new(run, old, data, known=weights.classes, data_dir=data_dir)
    joined = join_expressions(old, data, old_limit=limit)
    is_solved = isinstance(run.base_recipe.optimizer, LinearHead)
    training = base if base.extension is None or is_solved else run.base_recipe
    trained = len(run.log) if training is base else training.epochs  # its log is not here
    draft = derive(
        training,
        name=f"{base.name}-more",
        source=MORE.format(base=base.name),
        data=joined,
        model=weights.model,
        channels=channels_of(weights),
        white=weights.white,
        standardize=weights.standardize,
        sampling=None if base.extension else base.sampling,
        class_weights=training.class_weights if training is base or training.class_weights == "balanced" else None,
        merge=True,
        pretrained=None,
        extension=None,
        skip_damaged=base.skip_damaged or skip_damaged,
        **RESET,  # early stopping until images are held out
        **slower(training, trained=trained),
    )
    with naming_lost_data(run, data_dir=data_dir):
        images = read_split(draft, "train", data_dir=data_dir, allow_remote=True)
    held_out = num_held_out(run, images)
    start = StartingWeights(
        file=run.name,
        sha256=run.weights_digest,
        head=True,
        redrawn=are_redrawn(run, draft, keeps_share=True),
    )
    changes = {"start": start, "validation": held_out, "early_stopping": training.early_stopping, "trial": base.trial}
    held = derive(draft, name=draft.name, **changes)
    return limit_length(held, num_images=len(images.labels) - held_out)
