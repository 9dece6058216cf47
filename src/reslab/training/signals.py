"""Stopping with grace: the first SIGINT, SIGTERM or SIGHUP asks, the second one ends at once, whichever they are."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is unknown to Windows


class StopRequest:
    """Whether somebody has asked the run to stop."""

    requested = False


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Turn the first signal into a request while the block runs; outside the main thread nothing is changed.

    What is ignored stays ignored, so that nohup keeps its meaning.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        give_back()

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        give_back()
