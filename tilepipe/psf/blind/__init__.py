"""Blind PSF estimation: slight blurs parametrically from the power spectrum, strong blurs as free-form kernels."""
