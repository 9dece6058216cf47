"""The shipped recipes, by name."""

from pathlib import Path

from reslab.errors import UserError, did_you_mean
from reslab.recipe.recipe import Recipe, read_recipe
from reslab.recipe.shipped import fast, lab, resnet_papers, zoo

__all__ = ["RECIPES", "find_recipe"]

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (*lab.RECIPES, *resnet_papers.RECIPES, *zoo.RECIPES, *fast.RECIPES)
}


def find_recipe(name: str) -> Recipe:
    """Look up a shipped recipe, or read one from a JSON file.

    Parameters
    ----------
    name : str
        A key of `reslab.RECIPES`, or the path of a file that ends in `.json`.

    Returns
    -------
    Recipe
        The recipe.

    Raises
    ------
    UserError
        If there is no such recipe, suggesting the nearest name, or the file is not a recipe.

    Examples
    --------
    >>> import reslab
    >>> reslab.find_recipe("digits-quick").data
    'digits'
    """
    if name in RECIPES:
        return RECIPES[name]
    if name.endswith(".json"):
        return read_recipe(Path(name))
    hint = did_you_mean(name, RECIPES, otherwise="choose another")
    raise UserError(f"unknown recipe {name!r}: {hint} (reslab recipes lists them; a file's name ends in .json)")
