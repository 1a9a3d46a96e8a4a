"""Restoration of one array: no files, no tiles, no graph."""
