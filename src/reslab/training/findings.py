"""Results of a quick data check, printed before training."""

from pathlib import Path

from reslab.data.check.examine import look_at
from reslab.data.check.words import describe
from reslab.data.load import find_validation
from reslab.recipe.recipe import Recipe, Steps, divide_epoch
from reslab.training.begin import Begun
from reslab.training.progress import say
from reslab.words import counted, listing

FEW_UPDATES = 100


def tell_findings(begun: Begun, *, data_dir: Path | None, silent: bool) -> None:
    """Print problems of the training and validation images and what is not used; the test split stays closed."""
    if silent or not begun.team.is_first:
        return
    report = look_at(begun.splits, data_dir=data_dir)
    for line in describe(report) if report else ():
        say(line, silent=False)
    if len(begun.splits) == 1:  # none are held out
        for source in find_validation(begun.splits[0].expression, data_dir=data_dir):
            advice = "" if begun.run.recipe.extension else ": set validation above 0 to use them"
            say(f"the validation images of {source} are not used{advice}", silent=False)


def tell_missed(begun: Begun, recipe: Recipe, *, silent: bool) -> None:
    """Print the image sizes, the steps of the rate and the updates that a run does not reach."""
    num_images = len(begun.splits[0].labels)
    missed = describe_missed(recipe, num_images=num_images) or describe_limit(recipe, num_images=num_images)
    for line in (missed, describe_last_size(recipe)):
        if line:
            say(line, silent=silent or not begun.team.is_first)


def describe_last_size(recipe: Recipe) -> str | None:
    """Describe that progressive resizing ends at another size than the network is for; None if it does not."""
    last = recipe.progressive_resizing[-1].image_size if recipe.progressive_resizing else recipe.image_size
    if last == recipe.image_size:
        return None
    return (
        f"training ends at {last} pixels a side, but the network takes images of {recipe.image_size}: end "
        "progressive_resizing at image_size, or set it to []"
    )


def describe_missed(recipe: Recipe, *, num_images: int) -> str | None:
    """Describe the image sizes and the steps of the rate that a run ends before; None if it reaches them all."""
    per_epoch = recipe.count_batches(num_images)
    updates = recipe.count_updates(per_epoch)
    epochs, schedule = -(-updates // per_epoch), recipe.schedule
    missed = [
        f"{each.image_size} pixels a side (epoch {each.epoch})"
        for each in recipe.progressive_resizing
        if each.epoch >= epochs
    ]
    if isinstance(schedule, Steps) and (places := schedule.missed(epochs=epochs, updates=updates)):
        missed.append(f"the steps of the learning rate after {listing([f'{at:,}' for at in places])} {schedule.unit}")
    if not missed:
        return None
    scaling = f"--epochs {epochs}, in place of --set epochs or updates, scales them to it"
    advice = scaling if epochs > 1 else "train for more epochs, or set them anew"  # no step fits into one epoch
    return f"this run of {counted(epochs, 'epoch')} ends before {listing(missed)}: {advice}"


def describe_limit(recipe: Recipe, *, num_images: int) -> str | None:
    """Describe that the epochs end a run before its number of updates; None if they do not."""
    per_epoch = recipe.count_batches(num_images)
    updates = recipe.count_updates(per_epoch)
    if recipe.updates is None or recipe.updates <= updates:
        return None
    return (
        f"this run of {counted(recipe.epochs, 'epoch')} ends after {counted(updates, 'update')}, before "
        f"updates={recipe.updates}: set epochs to {-(-recipe.updates // per_epoch)} or more"
    )


def tell_few_updates(begun: Begun, recipe: Recipe, *, silent: bool) -> None:
    """Print a warning if a recipe for larger data makes few updates on these images."""
    if line := describe_few_updates(recipe, num_images=len(begun.splits[0].labels)):
        say(line, silent=silent or not begun.team.is_first)


def describe_few_updates(recipe: Recipe, *, num_images: int) -> str | None:
    """Describe that a recipe makes too few updates on so few images, and what to set; None if they suffice."""
    updates = recipe.count_updates(recipe.count_batches(num_images))
    if updates >= FEW_UPDATES or num_images > recipe.batch_size * FEW_UPDATES:
        return None
    batch_size = max(4, min(recipe.batch_size, num_images // 8))
    epochs = -(-FEW_UPDATES // len(divide_epoch(num_images, batch_size)))
    return (
        f"{counted(num_images, 'training image')} make {counted(updates, 'update')}, too few to learn much from; "
        f"batch_size={batch_size} and epochs={max(recipe.epochs, epochs)} make more, and reslab fit chooses for itself"
    )
