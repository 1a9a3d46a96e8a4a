"""`tilepipe.deconvolve` for numpy and dask arrays."""
