"""What the operating system lends: compiled kernels, durable files, memory, reading ahead."""
