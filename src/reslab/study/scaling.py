"""A recipe in a part of its epochs: everything that is counted in epochs or updates shrinks with them."""

import math
from typing import Any

from reslab.errors import UserError
from reslab.recipe.recipe import Recipe, Steps, derive


def scale_recipe(recipe: Recipe, scale: float) -> Recipe:
    """Shorten a recipe to `scale` of its epochs, rounded up; what was published for it no longer applies.

    Steps of the rate stay inside the run. Raises: UserError where `scale` is not above 0 and at most 1.
    """
    if not 0 < scale <= 1:
        raise UserError(f"--epochs-scale {scale:g}: give a share of the epochs above 0 and at most 1")
    if scale == 1:
        return recipe
    epochs = _at_least_one(recipe.epochs * scale)
    updates = recipe.updates and _at_least_one(recipe.updates * scale)
    # What really became of the length, after rounding.
    share = updates / recipe.updates if updates and recipe.updates else epochs / recipe.epochs
    changes: dict[str, Any] = {
        "published": None,
        "epochs": epochs,
        "updates": updates,
        # Of two sizes that now begin together the later one is meant.
        "progressive_resizing": tuple(
            {int(each.epoch * share): _moved(each, share) for each in recipe.progressive_resizing}.values()
        ),
        "freeze": tuple(_moved(each, share) for each in recipe.freeze),
        "schedule": _shortened_steps(recipe.schedule, share, epochs=epochs, updates=updates)
        if isinstance(recipe.schedule, Steps)
        else recipe.schedule,
    }
    return derive(recipe, name=f"{recipe.name}-x{scale:g}", **changes)


def _at_least_one(length: float) -> int:
    return max(1, math.ceil(round(length, 6)))


def _moved(part: Any, share: float) -> Any:
    return part.model_copy(update={"epoch": int(part.epoch * share)})


def _shortened_steps(steps: Steps, share: float, *, epochs: int, updates: int | None) -> Steps:
    end = epochs if steps.unit == "epochs" else updates
    last = max(1, end - 1) if end else None
    at = (max(1, round(place * share)) for place in steps.at)
    return steps.model_copy(update={"at": tuple(place if last is None else min(place, last) for place in at)})
