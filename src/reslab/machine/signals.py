"""Ending in order: the first SIGINT, SIGTERM or SIGHUP asks, the second one ends at once, whichever they are.

A command that is asked unwinds as after Ctrl-C, so that it leaves no half-written file, and says so in a sentence.
While a network trains, the request waits for the update under way, which is then saved. What is ignored stays ignored,
so that nohup keeps its meaning. Outside of the main thread nothing is changed.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is unknown to Windows
STOPPED = "stopped: the same command starts it again"


class StopRequest:
    """Whether somebody has asked the run to stop."""

    requested = False


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Turn the first signal into a request while the block runs."""
    stop = StopRequest()

    def ask() -> None:
        stop.requested = True

    with _heeding(ask):
        yield stop


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn the first signal into a KeyboardInterrupt while the block runs, and that into a sentence and 1."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with _heeding(interrupt):
        try:
            yield
        except KeyboardInterrupt:
            print(f"reslab: {STOPPED}", file=sys.stderr)
            sys.exit(1)


@contextmanager
def _heeding(answer: Callable[[], None]) -> Iterator[None]:
    """Answer the first signal while the block runs; the second one finds what was there before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def heed(number: int, frame: FrameType | None) -> None:
        give_back()
        answer()

    for number in before:
        signal.signal(number, heed)
    try:
        yield
    finally:
        give_back()
