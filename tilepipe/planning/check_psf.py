"""Comparison of a PSF with the blur of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.dtypes import FloatArray
from tilepipe.image.readers import open_image
from tilepipe.image.selection import Selection
from tilepipe.planning.find_psf import find_psf
from tilepipe.planning.inspection import inspect_reader
from tilepipe.psf.blind.narrow import compare
from tilepipe.psf.field import AnyPSF
from tilepipe.psf.model import PSF

__all__ = ["check_psf"]


def check_psf(
    psf: AnyPSF,
    image: str | Path,
    window: Any = None,
    *,
    threads: int = 1,
    page: int | None = None,
    plane: str | None = None,
    salvage: bool = False,
) -> dict[str, Any]:
    """Compare `psf` with the PSF estimated from another image.

    Parameters are those of :func:`tilepipe.planning.find_psf.estimate_psf`.

    Returns
    -------
    dict
        "likeness" of the two kernels, 0..1; "gain": factor by which each makes the image sparser (1: none), and
        "misfit" of each over the noise; "confidence" of the estimate; "explains": whether `psf` does nearly as well as
        the estimate.  With a field, the figures are means over the windows, each with the kernels at its middle.
    """
    reader = open_image(image, Selection(page=page, plane=plane, salvage=salvage))
    try:
        inspection = inspect_reader(reader, None, window, threads=threads)
    finally:
        reader.close()
    blur = find_psf(inspection, threads=threads)
    shape = reader.info.height, reader.info.width
    groups: dict[tuple[PSF, PSF], list[FloatArray]] = {}
    for (y0, y1, x0, x1), pixels in zip(inspection.boxes, inspection.windows, strict=True):
        middle = (y0 + y1) // 2, (x0 + x1) // 2
        groups.setdefault((psf.at(*middle, shape), blur.psf.at(*middle, shape)), []).append(pixels)
    compared = [
        (alike, given.gain, found.gain, given.misfit, found.misfit)
        for (one, other), windows in groups.items()
        for alike, given, found in [compare(windows, inspection.noise, one.kernel, other.kernel)]
    ]
    alike, gain, gain_found, misfit, misfit_found = (float(value) for value in np.mean(compared, axis=0))
    return {
        "likeness": round(alike, 3),
        "gain": round(gain, 3),
        "gain_found": round(gain_found, 3),
        "misfit": round(misfit, 3),
        "misfit_found": round(misfit_found, 3),
        "confidence": blur.psf.confidence,
        "explains": bool(gain >= 1 + 0.7 * (gain_found - 1) and misfit <= 1.3 * max(misfit_found, 1.0)),
    }
