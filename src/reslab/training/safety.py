"""Safety of a run: how often it saves, and how it handles a loss that is not finite.

These are options of a command, not of a recipe: the final weights do not depend on how often they were saved.
"""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, get_args

from reslab.errors import UserError

Unit = Literal["epochs", "updates", "minutes"]
OnNonfinite = Literal["retry", "stop"]
LOWERED: Final = 0.1  # factor on the rate after a loss that was not finite


@dataclass(frozen=True)
class Safety:
    """Save `every` number of epochs, updates or minutes; after a loss that is not finite, `retry` once or `stop`."""

    every: int = 1
    unit: Unit = "epochs"
    on_nonfinite: OnNonfinite = "retry"
    saved: Callable[[Path], None] | None = None  # called with the run's folder after each checkpoint
    until: float = math.inf  # time by `time.monotonic` at which the run ends in its current state

    @classmethod
    def parse(cls, checkpoint_every: str, *, on_nonfinite: str) -> Self:
        """Parse user options such as 2epochs. Raises: UserError."""
        found = re.fullmatch(r"([1-9][0-9]{0,8}) ?(epoch|update|minute)s?", checkpoint_every)
        if found is None:
            raise UserError(
                f"--checkpoint-every {checkpoint_every}: write a whole number and epochs, updates or minutes, as in "
                "2epochs, 500updates or 10minutes"
            )
        if on_nonfinite not in get_args(OnNonfinite):
            raise UserError(f"--on-nonfinite {on_nonfinite}: choose retry or stop")
        return cls(int(found[1]), f"{found[2]}s", on_nonfinite)  # type: ignore[arg-type]


EVERY_EPOCH: Final = Safety()


class Clock:
    """Decides when the next checkpoint is due."""

    def __init__(self, safety: Safety) -> None:
        self.safety = safety
        self.restart()

    def restart(self) -> None:
        """Count the minutes from now."""
        self.saved = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Return whether the run's time is over."""
        return self.safety.until < math.inf and time.monotonic() >= self.safety.until

    def is_due(self, *, updates: int) -> bool:
        """Return whether to save within an epoch, after `updates` updates of the run."""
        match self.safety.unit:
            case "updates":
                return updates % self.safety.every == 0
            case "minutes":
                return time.monotonic() - self.saved >= 60 * self.safety.every
            case "epochs":
                return False

    def is_due_after(self, *, epochs: int) -> bool:
        """Return whether to save after `epochs` epochs of the run."""
        return self.safety.unit == "epochs" and epochs % self.safety.every == 0
