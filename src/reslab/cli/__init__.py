"""The command line: parse, call one function, print. Torch and the rest are imported inside the commands."""

import io
import os
import sys
from typing import Any

import typer

from reslab.cli import (
    catalogue,
    data,
    doctoring,
    exporting,
    extending,
    fitting,
    importing,
    predicting,
    runs,
    serving,
    studying,
    watching,
)
from reslab.errors import Failure, UserError
from reslab.machine.signals import STOPPED
from reslab.words import printable

UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # which Typer itself has in several places, by version
INTERRUPTED = 130  # what some versions of Typer make of an interrupt, and others an Abort
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")

app = typer.Typer(
    name="reslab",
    help="Train small-image classifiers, measure them honestly, compare with published results, teach new classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("lab", epilog="Example: reslab lab --out runs/lab")(runs.lab)
app.command("fit", epilog="Example: reslab fit folder:pictures --minutes 5 --out runs/pictures")(fitting.fit)
app.command("train", epilog="Example: reslab train digits-quick --out runs/digits --set epochs=5")(runs.train)
app.command("evaluate", epilog="Example: reslab evaluate runs/digits --views 2")(runs.evaluate)
app.command("extend", epilog="Example: reslab extend runs/lab/base --with digits:7 --out runs/seven")(extending.extend)
app.command("report", epilog="Example: reslab report runs/digits")(runs.report)
app.command("compare", epilog="Example: reslab compare runs/digits runs/lab/extended --out runs/both")(runs.compare)
app.command("predict", epilog="Example: reslab predict runs/digits four.png --top 2")(predicting.predict)
app.command("watch", epilog="Example: reslab watch runs/digits new-pictures")(watching.watch)
app.command("serve", epilog="Example: reslab serve runs/lab/base runs/lab/extended")(serving.serve)
app.command("dashboard", epilog="Example: reslab dashboard runs")(serving.dashboard)
app.command("import", epilog="Example: reslab import resnet56.th --model resnet56 --map akamaster --data cifar10")(
    importing.import_weights
)
app.command("export", epilog="Example: reslab export runs/digits --to digits.onnx")(exporting.export)
app.command("push", epilog="Example: reslab push runs/digits me/digits --private")(exporting.push)
app.command("pull", epilog="Example: reslab pull me/digits --out runs/pulled")(exporting.pull)
app.command("track", epilog="Example: reslab track runs/digits --to tensorboard:logs")(exporting.track)
app.command("doctor", epilog="Example: reslab doctor --json")(doctoring.doctor)
app.command("models", epilog="Example: reslab models --num-classes 15")(catalogue.models)
app.command("methods", epilog="Example: reslab methods --json")(catalogue.methods)
app.command("recipes", epilog="Example: reslab recipes lab-resnet32")(catalogue.recipes)
app.add_typer(data.app, name="data")
app.add_typer(studying.app, name="study")


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and exit.")
) -> None:
    if context.invoked_subcommand not in (None, "train") and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(f"torchrun is for reslab train only: run reslab {context.invoked_subcommand} without it")
    if version:
        from reslab import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run a command; a person's error is one sentence and ends with 2, a failure with 1."""
    from reslab.machine.launch import set_up_threads

    set_up_threads()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text at all
    try:
        code = app(prog_name="reslab", standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise typer.Abort
        sys.exit(code)
    except UsageError as error:
        _end_usage(error)
    except UserError as error:
        _end(str(error), code=2)
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except typer.Abort:
        _end(STOPPED, code=1)
    except (Failure, OSError) as error:
        _end(str(error), code=1)
    except (MemoryError, RuntimeError) as error:  # PyTorch has no type for the first of these, on a processor
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        _end(
            "there is not enough memory: a smaller batch_size or micro_batch_size needs less",
            code=1,
        )


def _end_usage(error: Any) -> None:
    """Say what Typer did not understand, and where to look; a group without its command shows its help instead."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(2)
    where = error.ctx.command_path if error.ctx else "reslab"
    _end(f"{error.format_message().rstrip('.')}: see {where} --help", code=2)


def _end(message: str, *, code: int) -> None:
    print(f"reslab: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)
