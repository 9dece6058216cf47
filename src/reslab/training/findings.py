"""What a quick check of its data says before a training."""

from pathlib import Path

from reslab.data.check.examine import look_at
from reslab.data.check.words import describe
from reslab.training.begin import Begun
from reslab.training.progress import say


def tell_findings(begun: Begun, *, data_dir: Path | None, silent: bool) -> None:
    """Say what is wrong with the images to learn from and what is not used; the test split stays closed."""
    if silent or not begun.team.is_first:
        return
    report = look_at(begun.splits, data_dir=data_dir)
    for line in describe(report) if report else ():
        say(line, silent=False)
