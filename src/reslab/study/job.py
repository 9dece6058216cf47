"""Do one run of a study: train or extend to the last epoch, then evaluate.

`do` needs nothing but its arguments, so that it can also be sent elsewhere. The run is trained and evaluated by the
functions behind `reslab train`, `reslab extend` and `reslab evaluate`; only the last opens the test split. They are
imported when they are called, because a worker imports this module, and Ray's unpickle `do`, before they have set up
the threads of PyTorch.
"""

from reslab.recipe.recipe import Recipe
from reslab.runs import Run
from reslab.study.plan import Job, Lesson, Machine, Saved


def do(job: Job, machine: Machine, *, saved: Saved | None = None) -> None:
    """Do one run, or what is left of it: train or extend to the last epoch, then evaluate both splits.

    `saved` is called with the run's folder after each checkpoint.
    Raises: UserError and Failure as training, extension and evaluation do.
    """
    from reslab.evaluation import evaluate

    is_new = not Run(job.out).is_finished
    if isinstance(job.task, Recipe):
        run = _train(job, job.task, machine, saved)
    else:
        run = _teach(job, job.task, machine, saved)
    if is_new or not job.is_measured:
        evaluate(run, **machine.reading)


def _train(job: Job, recipe: Recipe, machine: Machine, saved: Saved | None) -> Run:
    from reslab.training import Safety, resume, train

    safety = Safety(saved=saved)
    if job.is_begun:
        return resume(job.out, **machine.reading, silent=machine.silent, safety=safety, threads=machine.threads)
    return train(recipe, out=job.out, seed=job.seed, **machine.reading, silent=machine.silent, safety=safety)


def _teach(job: Job, lesson: Lesson, machine: Machine, saved: Saved | None) -> Run:
    from reslab.extension import extend, resume_extension
    from reslab.training import Safety

    safety = Safety(saved=saved)
    if job.is_begun:
        return resume_extension(
            job.out, **machine.reading, silent=machine.silent, safety=safety, threads=machine.threads
        )
    return extend(
        lesson.base,
        data=lesson.data,
        method=lesson.method,
        out=job.out,
        seed=job.seed,
        **machine.reading,
        silent=machine.silent,
        safety=safety,
    )
