"""Progress display during training: a bar on a terminal, else a line per epoch. Everything goes to stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from reslab.records import Epoch
from reslab.words import percent, printable

PAUSE, PAUSE_ON_A_TERMINAL = 30.0, 1.0  # seconds between updates on the current epoch


class Display:
    """Displays updates and epochs; if silent, nothing."""

    def __init__(self, *, total_updates: int, total_epochs: int, silent: bool) -> None:
        self.console = Console(stderr=True, quiet=silent, highlight=False)
        self.total_epochs = total_epochs
        self.total_updates = total_updates
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.due = 0.0 if self.console.is_terminal else time.monotonic() + PAUSE

    @contextmanager
    def shown(self, *, updates: int) -> Iterator["Display"]:
        """Show the bar within the block; `updates` are done already."""
        if self.console.quiet or not self.console.is_terminal:
            yield self
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as self.bar:
            self.task = self.bar.add_task("training", total=self.total_updates, completed=updates, rate="")
            yield self

    def update(
        self, *, done: int, epoch: int, images_per_second: float, so_far: Callable[[], tuple[float, float]]
    ) -> None:
        """Show that `done` updates are done, the newest in `epoch` (from 0).

        `so_far` returns the epoch's loss and accuracy so far; it is called rarely, since it makes a GPU wait.
        """
        if self.bar is not None:
            self.bar.update(self.task, completed=done)
        now = time.monotonic()
        if self.console.quiet or now < self.due:
            return
        loss, accuracy = so_far()
        description = f"epoch {epoch + 1}/{self.total_epochs}"
        words = f"{images_per_second:,.0f} images/s  loss {loss:.4f}  accuracy {percent(accuracy)}"
        if self.bar is not None:
            self.bar.update(self.task, description=description, rate=words)
            self.due = now + PAUSE_ON_A_TERMINAL
        else:
            self.say(f"{description} so far: {words}")
            self.due = now + PAUSE

    def epoch(self, done: Epoch) -> None:
        """Print the line of a finished epoch, which fits into 80 columns."""
        self.due = max(self.due, time.monotonic() + PAUSE) if self.bar is None else self.due
        line = (
            f"epoch {done.epoch:>3}/{self.total_epochs}  {done.seconds:7.1f} s  loss {done.train_loss:.4f}  accuracy "
            f"{percent(done.train_accuracy)}"
        )
        if done.validation_accuracy is not None:
            line += f"  validation {percent(done.validation_accuracy)}"
        self.say(line)

    def say(self, line: str) -> None:
        """Print a sentence, on a terminal broken between words."""
        _print(self.console, line)


def _print(console: Console, line: str, *, style: str = "") -> None:
    is_whole = not console.is_terminal  # in a file
    console.print(printable(line), soft_wrap=is_whole, markup=False, emoji=False, style=style)


def warn(line: str, *, silent: bool) -> None:
    """Print a sentence in red."""
    _print(Console(stderr=True, quiet=silent, highlight=False), line, style="red")


def say(line: str, *, silent: bool) -> None:
    """Print a sentence outside of a training display."""
    Display(total_updates=0, total_epochs=0, silent=silent).say(line)
