"""Training: a recipe and data to a run folder."""

from reslab.training.loop import resume, train

__all__ = ["resume", "train"]
