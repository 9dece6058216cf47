"""What this computer is and how to use it: devices, precision, memory, threads, kernels."""
