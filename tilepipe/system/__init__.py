"""Operating-system services: compiled kernels, durable files, memory, prefetching."""
