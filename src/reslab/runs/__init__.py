"""Run folders: their only reader and writer.

Every file is written beside its place, flushed to the disk and renamed, so that a reader sees the old file or the new
one. JSON, safetensors and plain npz only: nothing read here can run code. NumPy arrays in and out; no torch.
"""

from reslab.runs.checkpoints import Checkpoint
from reslab.runs.files import Damaged, make_folder, write_bytes, write_json
from reslab.runs.folder import Examples, Predictions, Run, pack_weights, read_weights
from reslab.runs.follower import Follower
from reslab.runs.gallery import (
    Copies,
    Doubts,
    Familiarities,
    Features,
    GalleryImages,
    HeatMaps,
    drop_exhibit,
    read_exhibit,
    write_exhibit,
)

__all__ = [
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
