"""Orderly shutdown: the first SIGINT, SIGTERM or SIGHUP requests a stop, the second one ends the process at once.

On a request a command unwinds as after Ctrl-C, so that it leaves no half-written file, and prints a sentence. During
training, the current update is finished and saved first. Ignored signals stay ignored, so that nohup works. Outside the
main thread nothing is changed.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # SIGHUP does not exist on Windows
STOPPED = "stopped: the same command starts it again"


class StopRequest:
    """Whether the run was asked to stop."""

    requested = False


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Turn the first signal within the block into a request to stop."""
    stop = StopRequest()

    def ask() -> None:
        stop.requested = True

    with _heeding(ask):
        yield stop


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn the first signal within the block into a KeyboardInterrupt, and that into a message and exit status 1."""

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
    """Call `answer` on the first signal within the block; the second one meets the original handlers."""
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
