"""The command that imports weights trained elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.options import DataDir, Json, Threads, use_threads
from reslab.errors import in_shell


def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file, or a state dict from torch.save.")],
    model: Annotated[str, typer.Option(help="The network, a name from reslab models.")],
    data: Annotated[str, typer.Option(metavar="EXPR", help="The data it was trained on.")],
    map: Annotated[
        str, typer.Option("--map", help="Its tensor names: akamaster, chenyaofo, torchvision, or order for any others.")
    ] = "order",
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The new run folder; runs/imported-MODEL by default.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels; default: what the network was designed for, 32 or 224.")
    ] = None,
    at_least: Annotated[
        float, typer.Option(min=0, max=1, help="Refuse weights below this accuracy on training images.")
    ] = 0.5,
    data_dir: DataDir = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Import weights that were trained elsewhere as a run; code in the file is never executed."""
    use_threads(threads)
    from reslab.cli.show import echo, print_json
    from reslab.training.importing import import_weights
    from reslab.words import percent

    folder = out or Path("runs") / f"imported-{model}"
    run, accuracy = import_weights(
        file,
        model=model,
        map=map,
        data=data,
        out=folder,
        image_size=image_size,
        at_least=at_least,
        data_dir=data_dir,
    )
    if json:
        print_json({"run": str(run.path), "training_accuracy": accuracy})
        return
    echo(f"Imported {file} as {run.path}: {percent(accuracy)} of training images are classified correctly")
    echo(f"Next: reslab evaluate {in_shell(run.path)}")
