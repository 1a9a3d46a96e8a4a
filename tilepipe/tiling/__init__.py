"""Geometry of tiles, blending of their overlaps, restoration of one tile in its frame."""
