"""The commands that make, measure and compare runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    RunThreads,
    SkipDamaged,
    Threads,
    check_csv,
    check_epochs,
    refuse_beside_resume,
    use_threads,
)
from reslab.cli.show import (
    describe_pair,
    echo,
    echo_sentences,
    next_command,
    print_elsewhere,
    print_evaluation,
    print_finished,
    print_json,
    print_shortfall,
    print_table,
    to_plain,
)
from reslab.errors import UserError, in_shell, show

if TYPE_CHECKING:
    from reslab.recipe.recipe import Recipe
    from reslab.records import Evaluation
    from reslab.runs import Run

Seed = Annotated[int, typer.Option(min=0, help="Seed of initialization, order and augmentation.")]

MOST_FIELDS = 8  # of recipes that a table shows side by side


def lab(
    out: Annotated[Path, typer.Option(help="The output folder; an interrupted lab there is resumed.")] = Path(
        "runs/lab"
    ),
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Run the lab on built-in digits, offline: train, teach new classes, evaluate, report."""
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
        echo(f"Report: {run.path / 'report.html'} (open it in a browser)")


def train(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(help="A shipped recipe's name, or a JSON file.")] = None,
    out: Annotated[Path | None, typer.Option(help="The new run folder; runs/RECIPE-seedN by default.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a recipe field; repeatable.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Start from weights of a run, a file or timm:NAME."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Scale the recipe to this many epochs.")] = None,
    seed: Seed = 0,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Resume an interrupted run.")] = None,
    compile: Compile = "auto",
    precision: Precision = "auto",
    deterministic: Deterministic = False,
    trial: Annotated[
        bool, typer.Option("--trial", help="A run for choosing settings: its test split stays closed.")
    ] = False,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Shorten the recipe to fit into this time.")] = None,
    checkpoint_every: CheckpointEvery = "1epoch",
    on_nonfinite: OnNonfinite = "retry",
    skip_damaged: SkipDamaged = False,
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    device: Device = "auto",
    threads: RunThreads = None,
    json: Json = False,
) -> None:
    """Train a recipe into a run folder. Does not read the test split."""
    if (recipe is None) == (resume is None):
        raise UserError("name a recipe to train (reslab recipes lists them), or resume a run with --resume RUN")
    if resume is not None and epochs is not None:
        from reslab.runs import Run

        weights = f"; add --from {in_shell(resume)} to start from its weights" if Run(resume).is_finished else ""
        raise UserError(
            f"--resume keeps the number of epochs, since the learning rate schedule of {resume} depends on it: train "
            f"again with reslab train {in_shell(resume)}/recipe.json --epochs {epochs} --out NEW{weights}"
        )
    if resume is not None:
        refuse_beside_resume(context)
    use_threads(threads)
    from reslab import training
    from reslab.runs import Run

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
        flags = ["trial=true"] * trial + ["skip_damaged=true"] * skip_damaged
        chosen = _choose_recipe(recipe, [*(settings or ()), *flags], epochs=epochs)
        names_data = any(each.partition("=")[0].strip() == "data" for each in settings or ())
        run = training.train(
            chosen,
            out=out or _name_folder(chosen, seed=seed),
            seed=seed,
            device=device,
            data_dir=data_dir,
            allow_remote=allow_remote or names_data,
            silent=False,
            safety=safety,
            compile=compile,
            precision=precision,
            deterministic=deterministic,
            minutes=minutes,
            start=start,
        )
    if os.environ.get("RANK", "0") != "0":  # only the first of torchrun's processes reports
        return
    if json:
        print_json({"run": str(run.path), "log": [epoch.model_dump() for epoch in run.log]})
        return
    print_finished(run, how="Trained", was_finished=was_finished)


def _choose_recipe(name: str, settings: Sequence[str], *, epochs: int | None) -> "Recipe":
    from reslab.recipe.settings import with_settings
    from reslab.recipe.shipped import find_recipe

    recipe = find_recipe(name)
    check_epochs(epochs, settings)
    return with_settings(recipe if epochs is None else recipe.lasting(epochs), settings)


def _name_folder(recipe: "Recipe", *, seed: int) -> Path:
    """Return the run folder that a recipe's name stands for. Raises: UserError if it would lie outside runs."""
    folder = Path("runs") / f"{recipe.name}-seed{seed}"
    if folder.parent != Path("runs") or not recipe.name.isprintable():
        raise UserError(f"the recipe's name {show(recipe.name)} is not the name of a folder: add --out DIR")
    return folder


def calibrate(
    run: RunPath,
    twin: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A run of the same recipe with held-out images; else train one.")
    ] = None,
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    device: Device = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Calibrate a run that was trained on all images, by training a twin that holds some out."""
    use_threads(threads)
    from reslab.runs import Run
    from reslab.training.calibrating import calibrate

    opened = Run.open(run)
    was_evaluated = opened.is_evaluated
    found = calibrate(
        opened,
        twin=None if twin is None else Run.open(twin),
        device=device,
        data_dir=data_dir,
        allow_remote=allow_remote,
        silent=False,
    )
    if json:
        print_json(found.model_dump() | {"evaluation_removed": was_evaluated})
        return
    again = "; its earlier evaluation and report were removed" if was_evaluated else ""
    echo(f"{run} is {found.words}{again}")
    echo(f"Next: reslab evaluate {in_shell(run)}")


def evaluate(
    run: RunPath,
    splits: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated splits: train, validation, test. Default: train,test; for a trial, train,validation."
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            help="Also measure test-time augmentation, the mean of several views of each image: 2 (it and its mirror "
            "image) or 6 (both also shifted by a pixel up and left, and down and right)."
        ),
    ] = None,
    onnx: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Measure this exported file on the test split instead; repeatable."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="Measure other labelled images instead, of the same or fewer classes."),
    ] = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="With --data, leave out unreadable pictures.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write the answer to each test image to this file.")
    ] = None,
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    device: Device = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure a finished run on its training and test splits, a trial on training and validation."""
    from reslab.records import SPLITS

    named = splits.split(",") if splits else []
    chosen = [name for name in SPLITS if name in named]
    if len(chosen) != len(named):
        raise UserError(f"--splits {splits}: choose from {', '.join(SPLITS)}, joined by commas, each once")
    check_csv(csv)
    use_threads(threads)
    from reslab import evaluation
    from reslab.evaluation.answers_table import answers_csv
    from reslab.runs import Run
    from reslab.runs.files import write_bytes

    opened = Run.open(run)
    measured_on = opened.recipe.measured_on
    if csv is not None and (onnx or data is not None or (chosen and measured_on not in chosen)):
        raise UserError(
            f"--csv writes the answers to the {measured_on} split: name it in --splits, and omit --onnx and --data"
        )
    if skip_damaged and data is None:
        raise UserError("--skip-damaged belongs to --data: a run's own images are read as it was trained")
    if onnx:
        if data is not None or named or views is not None or device != "auto":
            raise UserError(
                "--onnx measures exported files on the test split, on the processor: omit --data, --splits, --views "
                "and --device"
            )
        _measure_files(opened, onnx, data_dir=data_dir, allow_remote=allow_remote, json=json)
    elif data is not None:
        if named or views is not None:
            raise UserError("--data cannot be combined with --splits or --views: omit them")
        _measure_elsewhere(opened, data, device=device, data_dir=data_dir, skip_damaged=skip_damaged, json=json)
    else:
        figures = evaluation.evaluate(
            opened, splits=chosen or None, views=views, device=device, data_dir=data_dir, allow_remote=allow_remote
        )
        print_shortfall(opened)
        if csv is not None:
            write_bytes(csv, answers_csv(opened, measured_on))
        if json:
            print_json(figures.model_dump())
        else:
            print_evaluation(figures)
            if csv is not None:
                echo(f"Answers: {csv}")
            _print_next(opened, figures)


def _measure_files(run: "Run", files: Sequence[Path], *, data_dir: Path | None, allow_remote: bool, json: bool) -> None:
    from reslab.cli.exporting import print_onnx
    from reslab.evaluation.onnx import evaluate_onnx

    print_onnx(evaluate_onnx(run, files=files, data_dir=data_dir, allow_remote=allow_remote), as_json=json)


def _measure_elsewhere(
    run: "Run", data: str, *, device: str, data_dir: Path | None, skip_damaged: bool, json: bool
) -> None:
    from reslab.evaluation.elsewhere import evaluate_elsewhere

    found, path = evaluate_elsewhere(run, data=data, device=device, data_dir=data_dir, skip_damaged=skip_damaged)
    if json:
        print_json(found.model_dump() | {"file": str(path)})
    else:
        print_elsewhere(found)
        echo(f"Metrics: {path}")


def _print_next(run: "Run", figures: "Evaluation") -> None:
    recipe = run.recipe
    if figures.calibration is None and not (recipe.validation or recipe.extension or recipe.imported):
        again = f"reslab calibrate {in_shell(run.path)}"
        echo(f"Probabilities are not calibrated, since no images were held out: see {again}")
    echo(f"Next: {next_command(run)}")


def report(
    run: RunPath,
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Another evaluated run to compare with, on the same images.")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also write report.pdf, by a browser on this machine.")] = (False),
    lang: Annotated[str, typer.Option(metavar="en|ru", help="The language of the report and the model card.")] = "en",
    json: Json = False,
) -> None:
    """Write a run's report: one HTML file that opens offline, report.md, a model card, and plots as PNG."""
    from reslab.language import find_language
    from reslab.report import write_report
    from reslab.report.printing import find_browser, print_page
    from reslab.runs import Run

    if pdf:
        find_browser()
    language = find_language(lang)
    path = write_report(Run.open(run), against=None if against is None else Run.open(against), language=language)
    printed = print_page(path) if pdf else None
    figures = "figures" if language == "en" else f"figures-{language}"
    if json:
        card = run / path.with_suffix(".md").name.replace("report", "model-card", 1)
        files = {"report": path, "figures": run / figures, "markdown": path.with_suffix(".md"), "card": card}
        print_json({name: str(file) for name, file in (files | ({"pdf": printed} if printed else {})).items()})
        return
    echo(f"Report: {path} (open it in a browser); plots: {run / figures}")
    if printed:
        echo(f"PDF: {printed}")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Two or more evaluated run folders.")],
    out: Annotated[Path, typer.Option(help="The folder for the plot of the learning curves.")] = Path("runs/compared"),
    json: Json = False,
) -> None:
    """Compare runs: a table, learning curves in one plot, and McNemar's test for each pair."""
    from reslab.report.comparison import compare as compare_runs
    from reslab.report.comparison import differing_fields
    from reslab.report.curves import write_curves
    from reslab.runs import Run
    from reslab.words import duration, figure, named

    if len(runs) < 2:
        raise UserError("name at least two runs to compare")
    opened = [Run.open(path) for path in runs]
    found = compare_runs(opened)
    chart = write_curves(opened, names=[row.name for row in found.rows], out=out)
    if json:
        print_json(to_plain(found) | {"chart": None if chart is None else str(chart)})
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
    fields = differing_fields(opened)
    if len(fields) > MOST_FIELDS:
        echo_sentences(f"Their recipes differ in {len(fields)} fields: {named(list(fields))}.")
    elif fields:
        rows = [[field, *values] for field, values in fields.items()]
        print_table("What their recipes set differently", ["field", *(row.name for row in found.rows)], rows)
    for pair in found.pairs:
        echo_sentences(describe_pair(pair))
    if chart is not None:
        echo(f"Learning curves: {chart}")
