"""Recipes of an older schema in today's fields."""

from collections.abc import Mapping
from typing import Any, Final

from reslab.errors import show

_NO_GAIN: Final = "no shipped recipe gained from it, so reslab no longer has it: omit it"
REMOVED: Final = {"average": f"EMA: {_NO_GAIN}", "selection": f"selective backprop: {_NO_GAIN}"}


def upgrade(content: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the fields that are gone and were not used. Raises: ValueError naming one that was used."""
    for name, reason in REMOVED.items():
        if content.get(name) is not None:
            raise ValueError(f"{name} is {show(content[name])}; {reason}")
    return {name: value for name, value in content.items() if name not in REMOVED}
