"""What is wrong with data: files that are not used, broken pictures, duplicates, classes that are hard to learn."""
