"""Training: a recipe and data to a run folder."""

from reslab.training.loop import resume, train
from reslab.training.safety import Safety

__all__ = ["Safety", "resume", "train"]
