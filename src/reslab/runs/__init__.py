"""Run folders: their only reader and writer.

Every file is written beside its place, flushed to disk and renamed, so that a reader sees either the old or the new
file. Only JSON, safetensors and plain npz are read, which never executes code. NumPy arrays in and out; no torch.
"""

from reslab.runs.checkpoints import Checkpoint
from reslab.runs.files import Damaged, make_folder, write_bytes, write_json
from reslab.runs.folder import DEMO, DEMO_FOLDER, Examples, Predictions, Run, pack_weights, read_weights
from reslab.runs.follower import Follower
from reslab.runs.gallery import (
    Copies,
    Doubts,
    Familiarities,
    Features,
    GalleryImages,
    HeatMaps,
    InSeries,
    drop_exhibit,
    read_exhibit,
    write_exhibit,
)

__all__ = [
    "DEMO",
    "DEMO_FOLDER",
    "Checkpoint",
    "Copies",
    "Damaged",
    "Doubts",
    "Examples",
    "Familiarities",
    "Features",
    "Follower",
    "GalleryImages",
    "HeatMaps",
    "InSeries",
    "Predictions",
    "Run",
    "drop_exhibit",
    "make_folder",
    "pack_weights",
    "read_exhibit",
    "read_weights",
    "write_bytes",
    "write_exhibit",
    "write_json",
]
