"""Image files: reading in bands, writing as a stream, light and metadata."""
