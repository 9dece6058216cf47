"""The command line: parse, call one function, print. Torch and the rest are imported inside the commands."""

import io
import os
import sys
from collections.abc import Callable
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
from reslab.cli.screens import LOOK, MAP, START, TRAIN, USE, Grouped
from reslab.errors import Failure, UserError
from reslab.machine.signals import STOPPED
from reslab.words import printable

UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # where Typer keeps it depends on the version
INTERRUPTED = 130  # exit code of an interrupt in some versions of Typer; others raise Abort
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")

HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="reslab",
    cls=Grouped,
    help="Train small-image classifiers, measure them honestly, compare with published results, teach new classes.",
    context_settings=HELP,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _add(panel: str, name: str, function: Callable[..., None], example: str) -> None:
    app.command(name, rich_help_panel=panel, epilog=f"Example: reslab {name} {example}".rstrip())(function)


_add(START, "demo", serving.demo, "")
_add(START, "fit", fitting.fit, "folder:pictures --minutes 5 --out runs/pictures")
_add(START, "lab", runs.lab, "--out runs/lab")
_add(TRAIN, "train", runs.train, "digits-quick --out runs/digits --set epochs=5")
_add(TRAIN, "calibrate", runs.calibrate, "runs/fast-resnet20-seed0")
_add(TRAIN, "evaluate", runs.evaluate, "runs/digits --views 2")
_add(TRAIN, "report", runs.report, "runs/digits")
_add(TRAIN, "compare", runs.compare, "runs/digits runs/lab/extended --out runs/both")
_add(TRAIN, "extend", extending.extend, "runs/lab/base --with digits:7 --out runs/seven")
_add(TRAIN, "remember", extending.remember, "runs/lab/base")
_add(TRAIN, "import", importing.import_weights, "resnet56.th --model resnet56 --map akamaster --data cifar10")
app.add_typer(studying.app, name="study", rich_help_panel=TRAIN)
_add(USE, "predict", predicting.predict, "runs/digits four.png --top 2")
_add(USE, "watch", watching.watch, "runs/digits new-pictures")
_add(USE, "serve", serving.serve, "runs/lab/base runs/lab/extended")
_add(USE, "export", exporting.export, "runs/digits --to digits.onnx")
_add(USE, "push", exporting.push, "runs/digits me/digits --private")
_add(USE, "pull", exporting.pull, "me/digits --out runs/pulled")
_add(LOOK, "recipes", catalogue.recipes, "lab-resnet32")
_add(LOOK, "models", catalogue.models, "resnet20 fast_conv --num-classes 15")
_add(LOOK, "methods", catalogue.methods, "--json")
app.add_typer(data.app, name="data", rich_help_panel=LOOK)
_add(LOOK, "dashboard", serving.dashboard, "runs")
_add(LOOK, "track", exporting.track, "runs/digits --to tensorboard:logs")
_add(LOOK, "doctor", doctoring.doctor, "--json")


@app.callback(invoke_without_command=True)
def _begin(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and exit.")
) -> None:
    if context.invoked_subcommand not in (None, "train") and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(f"torchrun is for reslab train only: run reslab {context.invoked_subcommand} without it")
    if version:
        from reslab import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(MAP)


def main() -> None:
    """Run a command. A user's error prints one sentence and exits with 2, a failure with 1."""
    from reslab.machine.launch import set_up_threads

    set_up_threads()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may not be valid text
    try:
        code = app(prog_name="reslab", standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise typer.Abort
        sys.exit(code)
    except UsageError as error:
        _end_usage(error)
    except UserError as error:
        _end(str(error), code=2)
    except BrokenPipeError:  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except typer.Abort:
        _end(STOPPED, code=1)
    except (Failure, OSError) as error:
        _end(str(error), code=1)
    except (MemoryError, RuntimeError) as error:  # on a CPU, PyTorch raises a RuntimeError if it lacks memory
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        _end(
            "there is not enough memory: try a smaller batch_size or micro_batch_size",
            code=1,
        )


def _end_usage(error: Any) -> None:
    """Print a usage error and where to find help; a command group called without a command prints its help instead."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(2)
    where = error.ctx.command_path if error.ctx else "reslab"
    message = error.format_message().rstrip(".")
    _end(f"{message} See {where} --help" if message.endswith("?") else f"{message}: see {where} --help", code=2)


def _end(message: str, *, code: int) -> None:
    print(f"reslab: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)
