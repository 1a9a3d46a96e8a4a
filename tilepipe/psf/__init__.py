"""The point-spread function (PSF): checked kernel, file format, parametric shapes, blind estimation."""
