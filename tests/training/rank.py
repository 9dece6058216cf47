"""What one process of a run does that several train together; `TASK` is set by who starts it.

Faults come after the first epoch, in the process `faulty`; every process writes how it ended.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reslab.data.sources.shards import Reader
from reslab.recipe.recipe import read_recipe
from reslab.training import Safety, resume, train
from reslab.training.progress import Display

TASK: dict[str, Any] = globals()["TASK"]
os.environ |= TASK["environment"]
torch.set_num_threads(1)
FAULTS = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "asked": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "broken": lambda: (_ for _ in ()).throw(OSError("the disk has left")),
}


def fail(display: Display, done: object) -> None:
    FAULTS[TASK["fault"]]()


def work(out: Path) -> None:
    safety = Safety.parse(TASK["every"], on_nonfinite="retry")
    if (out / "recipe.json").exists():
        resume(out, safety=safety)
    else:
        train(read_recipe(Path(TASK["recipe"])), out=out, safety=safety, precision="float32")


def note(reader: Reader, number: int, read: Callable[..., Any] = Reader.read) -> Any:
    """Read a shard, and write down that this process did."""
    with Path(TASK["ended"]).with_suffix(".shards").open("a") as file:
        file.write(f"{number}\n")
    return read(reader, number)


setattr(Reader, "read", note)  # noqa: B010
if TASK["fault"] and TASK["faulty"] == int(os.environ["RANK"]):
    setattr(Display, "epoch", fail)  # noqa: B010
try:
    work(Path(TASK["out"]))
except BaseException as error:
    Path(TASK["ended"]).write_text(f"{type(error).__name__}: {error}")
else:
    Path(TASK["ended"]).write_text("")
