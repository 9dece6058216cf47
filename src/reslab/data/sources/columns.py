"""Columns of a table of pictures, found by their usual names."""

from collections import defaultdict
from collections.abc import Iterable

from reslab.errors import UserError
from reslab.words import named

USUAL = {
    "file": (
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "path",
        "image",
        "image_path",
        "img",
        "image_id",
        "id",
        "name",
    ),
    "label": ("label", "labels", "class", "class_name", "target", "category", "species", "breed", "diagnosis", "y"),
    "split": ("split", "set", "subset", "partition"),
    "group": ("group",),
}


def find_column(columns: Iterable[str], what: str) -> str | None:
    """Find the column of the file, label, split or group by its usual names; None if there is none.

    Raises: UserError if several have the first of these names.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for name in columns:
        by_name[name.strip().lower().replace(" ", "_")].append(name)
    found = next((by_name[name] for name in USUAL[what] if name in by_name), [])
    if len(found) > 1:
        raise UserError(f"the columns {named(found)} could both be the {what}: rename or remove all but one")
    return found[0] if found else None
