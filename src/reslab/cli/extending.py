"""The command that teaches a finished run new classes."""

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
    RunThreads,
    SkipDamaged,
    Threads,
    check_epochs,
    refuse_beside_resume,
    use_threads,
)
from reslab.cli.show import echo, print_finished, print_json
from reslab.errors import UserError, in_shell


def extend(
    context: typer.Context,
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A finished run folder: the base.")] = None,
    data: Annotated[
        str | None, typer.Option("--with", metavar="EXPR", help="The new classes, e.g. cifar100:reptiles, folder:PATH.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The new run folder.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="A name from reslab methods; default: finetune-distill; fusion for a base made by fit, or with what "
            "remember stored."
        ),
    ] = None,
    old_data: Annotated[
        str, typer.Option(metavar="all|none|N", help="Training images of the old classes to use; N: per class.")
    ] = "all",
    prior: Annotated[
        str,
        typer.Option(
            metavar="base|used|N",
            help="Expected frequency of old classes in future images: as in the whole base, as in the images used, "
            "or N times that of a new class.",
        ),
    ] = "base",
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge classes of the same name; if none is new, train further.")
    ] = False,
    keep_old: Annotated[
        str | None,
        typer.Option(metavar="exact", help="exact: keep the old classes' logits bit for bit, with --method fusion."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override how the method trains; repeatable."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; default: a share of the base's.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Shorten fine-tuning to this many minutes here.")] = None,
    skip_damaged: SkipDamaged = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of order and augmentation.")] = 0,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Resume an interrupted extension.")] = None,
    compile: Compile = "auto",
    precision: Precision = "auto",
    deterministic: Deterministic = False,
    checkpoint_every: CheckpointEvery = "1epoch",
    on_nonfinite: OnNonfinite = "retry",
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    device: Device = "auto",
    threads: RunThreads = None,
    json: Json = False,
) -> None:
    """Teach a trained network new classes without losing the old ones. Does not read the test split."""
    if resume is not None:
        refuse_beside_resume(context)
    elif run is None or data is None or out is None:
        raise UserError("write reslab extend RUN --with EXPR --out DIR, or --resume DIR")
    check_epochs(epochs, settings)
    use_threads(threads)
    from reslab import extension
    from reslab.runs import Run
    from reslab.training import Safety

    was_finished = resume is not None and Run(resume).is_finished
    safety = Safety.parse(checkpoint_every, on_nonfinite=on_nonfinite)
    if run is None or data is None or out is None:
        made = extension.resume_extension(
            resume or Path(),
            device=device,
            data_dir=data_dir,
            allow_remote=allow_remote,
            silent=False,
            safety=safety,
            threads=threads,
        )
    else:
        made = extension.extend(
            run,
            data=data,
            method=method,
            old_data=_read_old_data(old_data),
            merge=merge,
            prior=prior,
            keep_old=keep_old,
            settings=[*(settings or ()), *([] if epochs is None else [f"epochs={epochs}"])],
            minutes=minutes,
            skip_damaged=skip_damaged,
            out=out,
            seed=seed,
            device=device,
            data_dir=data_dir,
            allow_remote=allow_remote,
            silent=False,
            safety=safety,
            compile=compile,
            precision=precision,
            deterministic=deterministic,
        )
    if json:
        tau = made.prior.model_dump() if made.recipe.extension else None  # none for more pictures of known classes
        print_json({"run": str(made.path), "prior": tau, "log": [epoch.model_dump() for epoch in made.log]})
        return
    print_finished(made, how="Extended", was_finished=was_finished)


def _read_old_data(text: str) -> str | int:
    if text in ("all", "none"):
        return text
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"--old-data {text}: write all, none, or how many training images of each old class to use")
    return int(text)


def remember(
    run: RunPath,
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    device: Device = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Store what extend --old-data none needs to extend a run without its training images."""
    use_threads(threads)
    from reslab import extension
    from reslab.runs import Run
    from reslab.words import counted

    opened = Run.open(run)
    found = extension.remember(opened, device=device, data_dir=data_dir, allow_remote=allow_remote)
    size = opened.memory_path.stat().st_size
    if json:
        print_json({"memory": str(opened.memory_path), "bytes": size, "images": found.counts.tolist()})
        return
    images, classes = counted(int(found.counts.sum()), "training image"), counted(len(found.counts), "class")
    echo(f"{run} remembers {images} of {classes} in {opened.memory_path} ({size / 1e6:.1f} MB)")
    echo(f"Next: reslab extend {in_shell(run)} --with EXPR --old-data none --out DIR")
