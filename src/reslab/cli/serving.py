"""The commands that serve web pages: predictions of a network, and the dashboard of runs."""

from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.options import AllowRemote, DataDir, Device, Threads, use_threads
from reslab.cli.show import echo

Host = Annotated[str, typer.Option(help="The address to listen on; one that other machines reach needs --token.")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="RESLAB_TOKEN", show_envvar=False, help="Clients must send this token; default: $RESLAB_TOKEN."
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")]


def serve(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Finished run folders, model.safetensors files, or demo.")
    ],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    neighbours: Annotated[
        int, typer.Option(min=0, help="Search this many training images for the nearest ones; 0: show none.")
    ] = 2000,
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Classify pictures on a web page and by an API; two runs answer side by side."""
    use_threads(threads)
    from reslab.errors import extra

    with extra("serve"):
        from reslab.serving.server import make_access, serve_runs

    serve_runs(
        runs,
        access=make_access(host, token=token),
        address=(host, port),
        neighbours=neighbours,
        data_dir=data_dir,
        allow_remote=allow_remote,
        device=device,
        say=echo,
    )


def demo(host: Host = "127.0.0.1", port: Port = 8000, token: Token = None, threads: Threads = None) -> None:
    """Try reslab offline: classify pictures on a web page with the CIFAR-10 network that comes with it."""
    from reslab.runs import DEMO_FOLDER, Run
    from reslab.words import counted, figure

    found = Run(DEMO_FOLDER).evaluation
    classes, accuracy = counted(len(found.classes), "class"), figure(found.splits["test"].accuracy)
    echo(f"{found.recipe} on CIFAR-10: {classes}, accuracy {accuracy} on the test images")
    echo(f"Pictures to try: {DEMO_FOLDER / 'pictures'}")
    serve([DEMO_FOLDER], host=host, port=port, token=token, neighbours=0, threads=threads)


def dashboard(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with runs, at any depth.")],
    host: Host = "127.0.0.1",
    port: Port = 8001,
    token: Token = None,
) -> None:
    """Show a folder's runs on a web page, with live learning curves, and compare them."""
    from reslab.errors import extra

    with extra("serve"):
        from reslab.serving.server import make_access, serve_dashboard

    serve_dashboard(folder, access=make_access(host, token=token), address=(host, port), say=echo)
