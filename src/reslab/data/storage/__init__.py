"""Storage of images on disk and in memory."""
