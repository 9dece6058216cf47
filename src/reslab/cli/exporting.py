"""The commands that export a run: to files, to a hub, to a tracker."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.options import AllowRemote, DataDir, Json, RunPath, Threads, use_threads
from reslab.cli.show import echo, print_json, print_table, to_plain
from reslab.errors import in_shell

if TYPE_CHECKING:
    from reslab.evaluation.onnx import OnnxEvaluation
    from reslab.exporting import Cost

Name = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A model repository on the hub.")]


def export(
    run: RunPath,
    to: Annotated[Path, typer.Option(metavar="model.onnx|model.pt2|page.html|DIR", help="Output file or folder.")],
    int8: Annotated[bool, typer.Option("--int8", help="Also write an ONNX file quantized to 8-bit integers.")] = False,
    fixed_size: Annotated[
        bool,
        typer.Option(
            "--fixed-size", help="Take images of the network's size only, for runtimes without dynamic shapes."
        ),
    ] = False,
    opset: Annotated[int, typer.Option(metavar="18-23", help="ONNX opset version.")] = 20,
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Export a network as ONNX, a PyTorch program, a web page, or a folder with a model card; checked after writing."""
    use_threads(threads)
    from reslab.exporting import export as export_run
    from reslab.runs import Run

    done = export_run(
        Run.open(run),
        to=to,
        int8=int8,
        fixed_size=fixed_size,
        opset=opset,
        data_dir=data_dir,
        allow_remote=allow_remote,
    )
    if json:
        print_json(to_plain(done))
        return
    for file in done.files:
        checked = ""
        if file.largest_difference is not None:
            checked = f", at most {file.largest_difference:.1e} from PyTorch on {done.images}"
        echo(f"{file.file}: {file.num_bytes / 1e6:.2f} MB{checked}")
    if done.int8 is not None:
        echo(_describe_int8(done.int8))


def _describe_int8(cost: "Cost") -> str:
    from reslab.words import percent

    return (
        f"int8: accuracy {percent(cost.accuracy)} instead of {percent(cost.accuracy_float)} on {cost.num_images:,} "
        f"{cost.split} images, {cost.images_per_second:,.0f} images/s instead of {cost.images_per_second_float:,.0f}; "
        "reslab evaluate RUN --onnx FILE measures it on the test split"
    )


def print_onnx(found: "OnnxEvaluation", *, as_json: bool) -> None:
    """Print how exported files compare with PyTorch on the test split."""
    if as_json:
        print_json(to_plain(found))
        return
    from reslab.words import figure

    print_table(
        f"Test split, {found.num_images:,} images, with 95 % intervals",
        ["file", "accuracy", "change", "images/s"],
        [
            [
                each.file,
                figure(each.accuracy),
                "" if each.change is None else figure(each.change, unit="points"),
                f"{each.images_per_second:,.0f}",
            ]
            for each in found.files
        ],
    )


def push(
    run: RunPath,
    to: Name,
    private: Annotated[bool, typer.Option("--private", help="Create a new repository as private.")] = False,
) -> None:
    """Upload a finished run to the hub: weights, recipe, metrics and a model card."""
    from reslab.integrations.hub import push as push_run
    from reslab.runs import Run

    echo(f"Uploaded to {push_run(Run.open(run), to=to, private=private)}")


def pull(
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME|demo", help="A model repository on the hub; or demo.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new run folder.")],
    json: Json = False,
) -> None:
    """Download a run from the hub into a run folder, or copy the one that comes with reslab.

    Accepts only JSON and safetensors files, and checks them.
    """
    from reslab.integrations.hub import pull as pull_run

    run = pull_run(name, out=out)
    if json:
        print_json({"run": str(run.path)})
        return
    echo(f"Next: reslab predict {in_shell(run.path)} PICTURE")


def track(
    run: RunPath,
    to: Annotated[
        str,
        typer.Option(
            metavar="tensorboard:DIR|mlflow[:URI]|wandb:DIR",
            help="The tracker; mlflow alone uses MLflow's own settings, else the folder mlruns.",
        ),
    ],
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for new epochs until the run finishes, or until Ctrl-C.")
    ] = False,
) -> None:
    """Send a run's log to TensorBoard, MLflow or Weights & Biases; with --follow, while it trains."""
    from reslab.integrations.tracking import track as track_run
    from reslab.runs import Run
    from reslab.words import counted

    num_epochs = track_run(Run.open(run), to=to, follow=follow)
    echo(f"Written to {to}: {counted(num_epochs, 'epoch')} of {run}")
