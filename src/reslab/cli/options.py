"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; all cores by default.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where CIFAR lies or is downloaded to; else $RESLAB_DATA, else the user's cache directory."),
]
AllowRemote = Annotated[
    bool,
    typer.Option(
        "--allow-remote", help="Contact other machines that a file names, such as a run's recipe, for images."
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def use_threads(threads: int | None) -> None:
    """Compute with so many threads, where a number was given."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


CheckpointEvery = Annotated[
    str,
    typer.Option(metavar="N(epochs|updates|minutes)", help="How often to save, e.g. 2epochs, 500updates, 10minutes."),
]
OnNonfinite = Annotated[
    str,
    typer.Option(metavar="retry|stop", help="After a loss that is not finite: once more at a lower rate, or stop."),
]
Compile = Annotated[
    str, typer.Option(help="on, off or auto: compile the network where that saves more time than it takes.")
]
Precision = Annotated[str, typer.Option(help="float32, bfloat16 or auto: multiply with bfloat16 where that is faster.")]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Only algorithms that repeat to the bit, also on a GPU; slower.")
]
