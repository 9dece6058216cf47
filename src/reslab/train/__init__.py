"""Training: a recipe and data to a run folder."""

from reslab.train.loop import resume, train

__all__ = ["resume", "train"]
