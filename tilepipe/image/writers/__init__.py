"""Image writers, one module per format."""
