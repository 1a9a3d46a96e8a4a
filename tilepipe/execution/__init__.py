"""Execution of a plan: ingest the image into the cache, restore and blend tiles, export the result."""
