"""Whether a PSF field that is given is of the camera, lens and size of the image."""

from __future__ import annotations

from tilepipe.image.info import ImageInfo
from tilepipe.image.metadata.camera import camera_facts
from tilepipe.psf.field import AnyPSF, PSFField

__all__ = ["field_mismatches"]

NAMES = {"camera": "the camera", "lens": "the lens", "focal_length": "a focal length of", "aperture": "an f-number of"}


def field_mismatches(psf: AnyPSF, info: ImageInfo) -> list[str]:
    """Return in words how the images that a field was estimated from differ from this one; empty for other PSFs."""
    if not isinstance(psf, PSFField):
        return []
    differences = []
    shape = psf.image_shape
    if shape is not None and shape != (info.height, info.width):
        differences.append(
            f"the PSF field is of images of {shape[1]} x {shape[0]} px, this one has {info.width} x {info.height}: its "
            "places are shares of the size, its widths px of that size"
        )
    facts, known = camera_facts(info.metadata), psf.made_by.get("camera", {})
    differences += [
        f"the PSF field is of {NAMES[key]} {known[key]}, this image of {facts[key]}"
        for key in NAMES
        if key in facts and key in known and facts[key] != known[key]
    ]
    return differences
