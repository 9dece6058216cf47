"""Images and labels: the data expression, its sources, storage, splits and batches."""
