"""Image files: banded reading, streamed writing, transfer curves and metadata."""
