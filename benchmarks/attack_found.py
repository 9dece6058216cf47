"""What a trial of attack.py found."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Found:
    """Attacks by kind, what was measured, and a sentence for each broken promise."""

    counts: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Any] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
