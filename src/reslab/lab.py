"""The lab's study on the digits that scikit-learn ships: real images, no network, about a minute."""

from pathlib import Path

from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.recipes import find_recipe
from reslab.report import write_report
from reslab.runs import Run
from reslab.training import resume, train


def run_lab(out: Path, *, seed: int = 0, silent: bool = True) -> Run:
    """Train, evaluate and report `digits-quick` in the folder `out`; a training begun there is finished.

    Raises: UserError where `out` holds something else, be it the same with another seed.
    """
    recipe = find_recipe("digits-quick")
    if (out / "recipe.json").exists():
        begun = Run.open(out)
        if begun.recipe != recipe or begun.environment.seed != seed:
            raise UserError(f"{out} holds another run than {recipe.name} with seed {seed}: choose another folder")
        run = resume(out, silent=silent)
    else:
        run = train(recipe, out=out, seed=seed, silent=silent)
    evaluate(run)
    write_report(run)
    return run
