"""reslab trains small-image classifiers, measures them honestly and teaches them new classes."""

__version__ = "0.1.0"
