"""A run: the picture into the cache, tiles restored and blended, the result written."""
