"""Recipes, and the metadata of weights, of an older schema in today's fields.

Schema 2 renames fields and drops those that no shipped recipe gained from.
"""

from collections.abc import Mapping
from typing import Any, Final

from reslab.errors import show

SCHEMA_VERSION: Final = 2
RENAMED: Final = {"growth": "progressive_resizing", "chunk_size": "micro_batch_size"}
RENAMED_IN_STANDARDIZE: Final = {"deviation": "std"}

_NO_GAIN: Final = "no shipped recipe gained from it, so reslab no longer has it: omit it"
REMOVED: Final = {"average": f"EMA: {_NO_GAIN}", "selection": f"selective backprop: {_NO_GAIN}"}


def upgrade(content: Any) -> Any:
    """Give JSON-like content of schema 1, or of none, in the fields of schema 2; leave any other as it is.

    Raises: ValueError naming a field that is gone but was used.
    """
    version = content.get("schema_version", 1) if isinstance(content, dict) else None
    if version is True or version != 1:
        return content
    for name, reason in REMOVED.items():
        if content.get(name) is not None:
            raise ValueError(f"{name} is {show(content[name])}; {reason}")
    kept = {name: value for name, value in content.items() if name not in REMOVED}
    upgraded = _renamed(kept, RENAMED) | {"schema_version": SCHEMA_VERSION}
    if isinstance(standardize := upgraded.get("standardize"), dict):
        upgraded["standardize"] = _renamed(standardize, RENAMED_IN_STANDARDIZE)
    return upgraded


def _renamed(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename what has not got its new name yet."""
    return {
        names[name] if name in names and names[name] not in content else name: value for name, value in content.items()
    }
