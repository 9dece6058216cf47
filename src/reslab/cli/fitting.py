"""The `reslab fit` command, which needs no recipe."""

from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.options import DataDir, Json, SkipDamaged, Threads, use_threads


def fit(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A data expression, such as folder:pictures.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The new run folder.")] = Path("runs/fit"),
    minutes: Annotated[float, typer.Option(help="Time for loading, choosing and training; evaluation is extra.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of a network that is trained.")] = 0,
    data_dir: DataDir = None,
    skip_damaged: SkipDamaged = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Find the best classifier for your images, evaluate it and write its report: no recipe needed."""
    use_threads(threads)
    from reslab.cli.show import echo, echo_sentences, print_evaluation, print_json, print_shortfall
    from reslab.data.check.examine import look
    from reslab.errors import Stopped
    from reslab.fitting import fit as fit_images
    from reslab.fitting.sentences import summarize

    run = fit_images(
        data, out=out, minutes=minutes, seed=seed, data_dir=data_dir, skip_damaged=skip_damaged, silent=False
    )
    print_shortfall(run)
    try:
        found = look(data, data_dir=data_dir, image_size=run.recipe.image_size, skip_damaged=skip_damaged)
        summary = summarize(run, found)
    except KeyboardInterrupt:
        raise Stopped(f"stopped: the run is finished, its report is {run.path / 'report.html'}") from None
    if json:
        files = {"run": str(run.path), "report": str(run.path / "report.html"), "summary": list(summary)}
        candidates = run.candidates
        chosen_from = [each.model_dump() for each in candidates.candidates] if candidates else []
        print_json(files | {"candidates": chosen_from} | run.evaluation.model_dump())
        return
    print_evaluation(run.evaluation)
    for sentence in summary:
        echo_sentences(sentence)
    echo(f"Report: {run.path / 'report.html'} (open it in a browser)")
