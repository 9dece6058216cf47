"""Checks of data: unused files, broken pictures, duplicates, classes that are hard to learn."""
