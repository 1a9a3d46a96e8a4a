"""Measurements; each also runs as a test at a tiny size (tests/test_benchmarks.py)."""
