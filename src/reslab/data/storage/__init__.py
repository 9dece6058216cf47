"""How images lie on the disk and in memory."""
