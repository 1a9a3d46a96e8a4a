"""Planning: PSF, noise, solver parameters, halo, memory and disk are determined before a run starts."""
