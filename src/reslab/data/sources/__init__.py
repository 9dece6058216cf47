"""Sources of images, one per file."""
