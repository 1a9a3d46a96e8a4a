"""`tilepipe.deconvolve`, for numpy and for dask arrays."""
