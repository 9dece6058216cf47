"""Training: from a recipe and data to a run folder."""

from reslab.training.safety import Safety
from reslab.training.session import resume, train

__all__ = ["Safety", "resume", "train"]
