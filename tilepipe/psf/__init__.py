"""The point-spread function: what it is, its file, its simple shapes."""
