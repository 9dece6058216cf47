"""Columns of a table of pictures, found by their usual names."""

from collections.abc import Iterable

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
    """Find the column of the file, label, split or group by its usual names; None if there is none."""
    by_name = {name.strip().lower().replace(" ", "_"): name for name in columns}
    return next((by_name[name] for name in USUAL[what] if name in by_name), None)
