"""Images and labels: sources, the data expression, splits and statistics."""

from reslab.data.cifar import Check, find_data_dir, verify
from reslab.data.load import Description, describe, load
from reslab.data.select import parse
from reslab.data.spec import ImageSet, Split
from reslab.data.split import hold_out

__all__ = [
    "Check",
    "Description",
    "ImageSet",
    "Split",
    "describe",
    "find_data_dir",
    "hold_out",
    "load",
    "parse",
    "verify",
]
