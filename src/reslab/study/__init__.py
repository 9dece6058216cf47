"""Studies: a published table as data, run with several seeds, with a verdict for each row."""

from reslab.study.spec import Study, read_study
from reslab.study.tables import STUDIES

__all__ = ["STUDIES", "Study", "find_study"]


def find_study(name: str) -> Study:
    """Look up a shipped study, or read one from a JSON file. Raises: UserError with the nearest right name."""
    return read_study(name, shipped=STUDIES)
