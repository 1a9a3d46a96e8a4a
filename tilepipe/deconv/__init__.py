"""Restoration of one array, independent of files, tiles and the task graph."""
