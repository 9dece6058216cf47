"""Progress lines for work that takes more than three seconds."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reslab.words import printable

READERS = 8  # threads that read files
PATIENCE = 3.0  # seconds before the first line
PAUSE = 10.0  # seconds between lines without a terminal

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@contextmanager
def counting(what: str, *, total: int, unit: str = "pictures") -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number done; it shows progress on stderr from the fourth second on."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task = bar.add_task(printable(what), total=total, rate="")
    began = time.monotonic()
    due = began + PATIENCE

    def show(done: int) -> None:
        nonlocal due
        now = time.monotonic()
        if now < due:
            return
        speed = done / (now - began)
        rate = f"{speed:,.0f} {unit}/s" if speed >= 1 else ""
        if console.is_terminal:
            bar.start()
            bar.update(task, completed=done, rate=rate)
        else:
            due = now + PAUSE
            line = f"reslab: {what}: {done:,} of {total:,} {unit}" + (f", {rate}" if rate else "")
            console.print(printable(line), soft_wrap=True, markup=False, emoji=False)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def in_threads(function: Callable[[ItemT], ResultT], items: Sequence[ItemT], *, what: str) -> Iterator[ResultT]:
    """Call a function with each item in several threads, and yield the results in order; progress is shown."""
    with ThreadPoolExecutor(READERS) as pool, counting(what, total=len(items)) as show:
        for done, result in enumerate(pool.map(function, items), 1):
            yield result
            show(done)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on stderr from the fourth second on how long this has taken, for work that cannot be counted."""
    console = Console(stderr=True, highlight=False)
    began, is_done = time.monotonic(), threading.Event()

    def speak() -> None:
        pause = PATIENCE
        while not is_done.wait(pause):
            line = f"reslab: {what}: {time.monotonic() - began:,.0f} s so far"
            console.print(printable(line), soft_wrap=True, markup=False, emoji=False)
            pause = PAUSE

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        is_done.set()
        speaker.join()
