"""Options of a folder or a table, written after the path in an expression."""

from dataclasses import dataclass

NONE = "none"  # instead of a column or a rule


@dataclass(frozen=True)
class Options:
    """How to read a folder or a table of pictures.

    For a folder, `label` is a regular expression on file names, and `level` is the depth of its class folders. For a
    table, `file`, `label` and `split` are columns, and `folder` is the pictures' folder relative to the table. `group`
    is a rule of `data.sources.groups`, or a column. With `none` as `split` or `group` there are no splits or groups.
    """

    label: str | None = None
    group: str | None = None
    file: str | None = None
    split: str | None = None
    folder: str | None = None
    level: int | None = None


NO_OPTIONS = Options()
