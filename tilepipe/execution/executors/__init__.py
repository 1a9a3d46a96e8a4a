"""Executors of the task graph: threads of this process, or a dask cluster."""
