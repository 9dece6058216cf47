"""The commands that make, measure and compare runs."""

import os
from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.options import (
    AllowRemote,
    CheckpointEvery,
    Compile,
    DataDir,
    Deterministic,
    Device,
    Json,
    OnNonfinite,
    Precision,
    RunPath,
    Threads,
    use_threads,
)
from reslab.cli.show import describe_pair, echo, print_evaluation, print_json, print_shortfall, print_table, to_plain
from reslab.errors import UserError

Seed = Annotated[int, typer.Option(min=0, help="Decides the first weights, the order and the augmentation.")]


def lab(
    out: Annotated[Path, typer.Option(help="The run folder; a lab that was begun there is finished.")] = Path(
        "runs/lab"
    ),
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Run the whole study on embedded digits: train, teach new classes, evaluate, report. Needs no network."""
    use_threads(threads)
    from reslab.lab import run_lab

    parts = run_lab(out, seed=seed, silent=False)
    for run in parts:
        print_shortfall(run)
    if json:
        print_json(
            [
                {"run": str(run.path), "report": str(run.path / "report.html"), **run.evaluation.model_dump()}
                for run in parts
            ]
        )
        return
    for run in parts:
        print_evaluation(run.evaluation)
        echo(f"The report is {run.path / 'report.html'}: open it in a browser.")


def train(
    recipe: Annotated[str | None, typer.Argument(help="A shipped recipe's name, or a JSON file.")] = None,
    out: Annotated[Path | None, typer.Option(help="The new run folder; runs/RECIPE-seedN by default.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe; repeatable.")
    ] = None,
    seed: Seed = 0,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")] = None,
    compile: Compile = "auto",
    precision: Precision = "auto",
    deterministic: Deterministic = False,
    trial: Annotated[
        bool, typer.Option("--trial", help="Mark a run made to choose between settings: its test split stays closed.")
    ] = False,
    checkpoint_every: CheckpointEvery = "1epoch",
    on_nonfinite: OnNonfinite = "retry",
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    device: Device = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Train a network by a recipe, into a run folder. The test split is not read."""
    if (recipe is None) == (resume is None):
        raise UserError("name a recipe to train (reslab recipes lists them), or --resume RUN to go on with a run")
    if resume is not None and (
        settings or out or seed or compile != "auto" or precision != "auto" or deterministic or trial
    ):
        raise UserError(
            "--resume goes on with a run as it was begun: leave --set, --out, --seed, --compile, --precision, "
            "--deterministic and --trial away"
        )
    use_threads(threads)
    from reslab import training
    from reslab.recipe.settings import with_settings
    from reslab.recipe.shipped import find_recipe
    from reslab.runs import Run
    from reslab.words import duration

    was_finished = resume is not None and Run(resume).is_finished
    safety = training.Safety.parse(checkpoint_every, on_nonfinite=on_nonfinite)
    if recipe is None or resume is not None:
        run = training.resume(
            resume or Path(),
            device=device,
            data_dir=data_dir,
            allow_remote=allow_remote,
            silent=False,
            safety=safety,
            threads=threads,
        )
    else:
        names_data = any(each.partition("=")[0].strip() == "data" for each in settings or ())
        chosen = with_settings(find_recipe(recipe), [*(settings or ()), *(["trial=true"] if trial else [])])
        folder = out or Path("runs") / f"{chosen.name}-seed{seed}"
        run = training.train(
            chosen,
            out=folder,
            seed=seed,
            device=device,
            data_dir=data_dir,
            allow_remote=allow_remote or names_data,
            silent=False,
            safety=safety,
            compile=compile,
            precision=precision,
            deterministic=deterministic,
        )
    if os.environ.get("RANK", "0") != "0":  # of the processes that torchrun has started, the first one says it
        return
    if json:
        print_json({"run": str(run.path), "log": [epoch.model_dump() for epoch in run.log]})
        return
    taken = duration(sum(epoch.seconds for epoch in run.log))
    done = "Finished before" if was_finished else f"Trained in {taken}"
    echo(f"{done}; next: reslab evaluate {run.path}")


def evaluate(
    run: RunPath,
    splits: Annotated[
        str | None,
        typer.Option(
            help="Splits to measure, with commas: train, validation, test. By default train,test; of a trial "
            "train,validation."
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(help="Also measure the mean over 2 or 6 views of each image, beside the plain figures."),
    ] = None,
    onnx: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Measure this exported file instead, on the test split; repeatable."),
    ] = None,
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    device: Device = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure a finished run on its training and test split, a trial on its training and validation split."""
    from reslab.records import SPLITS

    named = splits.split(",") if splits else []
    chosen = [name for name in SPLITS if name in named]
    if len(chosen) != len(named):
        raise UserError(f"--splits {splits}: choose from {', '.join(SPLITS)}, joined by commas, each once")
    if views not in (None, 2, 6):
        raise UserError(f"--views {views}: choose 2 (the image and its mirror image) or 6 (both also moved by a pixel)")
    use_threads(threads)
    from reslab import evaluation
    from reslab.runs import Run

    if onnx:
        from reslab.cli.exporting import print_onnx
        from reslab.evaluation.onnx import evaluate_onnx

        print_onnx(evaluate_onnx(Run.open(run), files=onnx, data_dir=data_dir, allow_remote=allow_remote), as_json=json)
        return

    figures = evaluation.evaluate(
        Run.open(run), splits=chosen or None, views=views, device=device, data_dir=data_dir, allow_remote=allow_remote
    )
    print_shortfall(Run(run))
    if json:
        print_json(figures.model_dump())
        return
    print_evaluation(figures)
    echo(f"Next: reslab report {run}" if "test" in figures.splits else "Next: reslab compare RUN RUN …")


def report(
    run: RunPath,
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Another evaluated run, to be tested against on the same images.")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Print it into report.pdf too, by a browser on this machine.")] = (
        False
    ),
    json: Json = False,
) -> None:
    """Write a run's report: one HTML file that opens offline, report.md, a model card, and the figures as PNG."""
    from reslab.report import write_report
    from reslab.report.printing import find_browser, print_page
    from reslab.runs import Run

    if pdf:
        find_browser()
    path = write_report(Run.open(run), against=None if against is None else Run.open(against))
    printed = print_page(path) if pdf else None
    if json:
        files = {"report": str(path), "figures": str(run / "figures"), "markdown": str(run / "report.md")}
        print_json(files | {"card": str(run / "model-card.md")} | ({"pdf": str(printed)} if printed else {}))
        return
    echo(f"The report is {path}: open it in a browser. Its figures are in {run / 'figures'}.")
    if printed:
        echo(f"It is printed in {printed}.")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN …", help="Two or more evaluated run folders.")],
    out: Annotated[Path, typer.Option(help="The folder for the chart of the curves.")] = Path("runs/compared"),
    json: Json = False,
) -> None:
    """Put runs beside each other: a table, their curves on one chart, and McNemar's test for each pair."""
    from reslab.report.comparison import compare as compare_runs
    from reslab.report.curves import write_curves
    from reslab.runs import Run
    from reslab.words import duration, figure

    if len(runs) < 2:
        raise UserError("name at least two runs to compare")
    opened = [Run.open(path) for path in runs]
    found = compare_runs(opened)
    chart = write_curves(opened, names=[row.name for row in found.rows], out=out)
    if json:
        print_json(to_plain(found) | {"chart": str(chart)})
        return
    print_table(
        f"{found.split.capitalize()} split, with 95 % intervals",
        ["run", "data", "model", "epochs", "training", "accuracy", "macro F1"],
        [
            [
                *(row.name, row.data, row.model, str(row.epochs), duration(row.seconds)),
                *(figure(row.accuracy), figure(row.macro_f1)),
            ]
            for row in found.rows
        ],
    )
    for pair in found.pairs:
        echo(describe_pair(pair))
    echo(f"The curves are in {chart}.")
