"""The lab's study on the digits that scikit-learn ships: real images, no network, about a minute.

Part one trains a network on the digits 0 to 6; part two teaches it 7 to 9, with 20 images each.
"""

from pathlib import Path

from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.extension import extend, resume_extension
from reslab.recipe.recipe import Recipe, derive
from reslab.recipe.shipped import find_recipe
from reslab.report import write_report
from reslab.runs import Run
from reslab.training import resume, train

FIRST, LATER = "digits:0-6", "digits:7-9@20"


def lab_recipe() -> Recipe:
    """Return the recipe of part one."""
    return derive(find_recipe("digits-quick"), name="lab", data=FIRST)


def run_lab(out: Path | str, *, seed: int = 0, silent: bool = True) -> tuple[Run, Run]:
    """Train, evaluate and report the two parts of the lab on digits, about a minute in all.

    Finished parts are kept and an interrupted one is resumed.

    Parameters
    ----------
    out : Path or str
        The folder in which the run folders `base` and `extended` are made.
    seed : int, default 0
        Random seed of both parts.
    silent : bool, default True
        Whether to hide the progress bar and the line of each epoch.

    Returns
    -------
    tuple of Run
        The run trained on the digits 0 to 6, and the one extended by 7 to 9.

    Raises
    ------
    UserError
        If `out` holds anything else, including the same runs with another seed.

    See Also
    --------
    train, extend, evaluate, write_report : The functions it calls.

    Examples
    --------
    >>> import reslab
    >>> base, extended = reslab.run_lab("runs/lab")
    >>> len(base.evaluation.classes), len(extended.evaluation.classes)
    (7, 10)
    """
    out = Path(out)
    if Run.is_at(out):
        raise UserError(f"{out} holds another run than the lab's: choose another folder")
    base = _train(out / "base", seed=seed, silent=silent)
    _finish(base)
    extended = _extend(base, out / "extended", seed=seed, silent=silent)
    _finish(extended)
    return base, extended


def _train(out: Path, *, seed: int, silent: bool) -> Run:
    recipe = lab_recipe()
    if not Run.is_at(out):
        return train(recipe, out=out, seed=seed, silent=silent)
    begun = Run.open(out)
    if begun.recipe != recipe or begun.environment.seed != seed:
        raise UserError(f"{out} holds another run than {recipe.name} with seed {seed}: choose another folder")
    return resume(out, silent=silent)


def _extend(base: Run, out: Path, *, seed: int, silent: bool) -> Run:
    if Run.is_at(out):
        return resume_extension(out, silent=silent)
    return extend(base.path, data=LATER, out=out, seed=seed, silent=silent)


def _finish(run: Run) -> None:
    evaluate(run)
    write_report(run)
