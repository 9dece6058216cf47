"""The options that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from reslab.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")]
RunThreads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads; default: all cores, with --resume as many as before."),
]
StudyThreads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="CPU threads of a run; default: all cores, shared by --workers; with --ray 1; for a resumed run as many "
        "as before.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="CIFAR's folder; missing files are downloaded to it. Default: $RESLAB_DATA, else your cache folder. If "
        "given, relative data paths are looked up here before the current directory."
    ),
]
AllowRemote = Annotated[
    bool,
    typer.Option("--allow-remote", help="Allow reading images from addresses named in a file, such as a run's recipe."),
]
SkipDamaged = Annotated[bool, typer.Option("--skip-damaged", help="Leave out unreadable pictures, and say how many.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def use_threads(threads: int | None) -> None:
    """Set the number of threads, if one was given."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


# What may be given with --resume, by the names of parameters; everything else is part of the run.
BESIDE_RESUME = {"resume", "checkpoint_every", "on_nonfinite", "data_dir", "allow_remote", "device", "threads", "json"}


def refuse_beside_resume(context: typer.Context) -> None:
    """Raises: UserError if --resume was given together with what the run has settled already."""
    from reslab.words import listing

    given = [
        parameter.opts[0] if parameter.opts[0].startswith("--") else parameter.opts[0].upper()
        for parameter in context.command.params
        if parameter.name not in BESIDE_RESUME and _is_given(context, str(parameter.name))
    ]
    if given:
        raise UserError(f"--resume keeps the settings of the run: omit {listing(given)}")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def check_csv(path: Path | None) -> None:
    """Check before the work where the table is to be written. Raises: UserError if it cannot be."""
    if path is not None and path.is_dir():
        raise UserError(f"--csv {path} is a folder: name a file in it")
    if path is not None and not path.parent.is_dir():
        raise UserError(f"--csv {path}: {path.parent} is not a folder: make it first, or name a file elsewhere")


def check_epochs(epochs: int | None, settings: Sequence[str] | None) -> None:
    """Raises: UserError if --epochs and --set epochs name two lengths."""
    for setting in settings or ():
        field, _, value = setting.partition("=")
        if epochs is not None and field.strip() == "epochs" and value.strip() != str(epochs):
            raise UserError(f"--epochs {epochs} and --set {setting} are two lengths: omit one")


CheckpointEvery = Annotated[
    str,
    typer.Option(
        metavar="N(epochs|updates|minutes)", help="How often to save a checkpoint, e.g. 2epochs, 500updates, 10minutes."
    ),
]
OnNonfinite = Annotated[
    str,
    typer.Option(metavar="retry|stop", help="After a non-finite loss: retry once at a lower learning rate, or stop."),
]
Compile = Annotated[str, typer.Option(help="on, off or auto: compile the network if that saves time.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16 or auto: bfloat16 if that is faster.")]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Use deterministic algorithms only, also on a GPU; slower.")
]
