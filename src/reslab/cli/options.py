"""The options that several commands share."""

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
        help="Where CIFAR is, or is downloaded to; default: $RESLAB_DATA, else your cache folder. If given, relative "
        "data paths start here, else in the current directory."
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


def check_csv(path: Path | None) -> None:
    """Check before the work where the table is to be written. Raises: UserError if a folder is there."""
    if path is not None and path.is_dir():
        raise UserError(f"--csv {path} is a folder: name a file in it")


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
