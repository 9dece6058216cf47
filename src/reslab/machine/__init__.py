"""This computer's hardware and its use: devices, precision, memory, threads, kernels."""
