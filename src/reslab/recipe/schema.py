"""Upgrade of recipes and weights metadata from an older schema.

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
    """Convert JSON-like content of schema 1, or without a schema, to schema 2; return any other unchanged.

    Raises: ValueError naming a removed field that was used.
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
    """Rename fields that still have their old names."""
    return {
        names[name] if name in names and names[name] not in content else name: value for name, value in content.items()
    }
