"""Doing the work: what a task is, the graph of them, and where it runs."""
