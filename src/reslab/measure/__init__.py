"""Metrics and their intervals. No files, no torch."""
