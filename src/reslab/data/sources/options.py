"""The options of a folder or a table, as an expression writes them behind the path."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How to read a folder or a table of pictures.

    Of a folder `label` is a regular expression on the files' names, and `level` says how deep its classes lie; of a
    table `file`, `label` and `split` are columns, and `folder`, as seen from the table, is where its pictures lie.
    `group` is a rule of `data.sources.groups`, or a column.
    """

    label: str | None = None
    group: str | None = None
    file: str | None = None
    split: str | None = None
    folder: str | None = None
    level: int | None = None


NO_OPTIONS = Options()
