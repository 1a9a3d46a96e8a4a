"""Samples of the output: a block of the result, encoded; input samples where nothing is restored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.refocus import composite
from tilepipe.dtypes import FloatArray
from tilepipe.execution.job import Job
from tilepipe.image.dither import dithered
from tilepipe.image.light import Light, saturated
from tilepipe.image.linearise import CLIPPED, hidden, start_and_data
from tilepipe.planning.plan import Plan
from tilepipe.tiling.grid import Box

__all__ = ["block_samples", "rescaled", "weight"]

Samples = npt.NDArray[Any]


@dataclass(frozen=True)
class Encoding:
    """How the working values of a run become samples of a dtype.

    Parameters
    ----------
    light : Light
        Curves of the output.
    dtype : str
        dtype of the output.
    same_curves, same_codes : bool
        Whether the curves, and also the dtype, are those of the input.
    is_unchanged : bool
        Whether all input samples are kept: nothing is restored, and the codes are the same.
    is_dithered : bool
        Whether 16 bits are dithered to 8.
    """

    light: Light
    dtype: str
    same_curves: bool
    same_codes: bool
    is_unchanged: bool
    is_dithered: bool

    @classmethod
    def of(cls, plan: Plan, job: Job, dtype: str) -> Encoding:
        """Return the encoding of the outputs of `plan` as `dtype`."""
        light = replace(plan.format.light(plan.info, dtype), unit=job.light.unit)
        same_curves = light.curves == job.light.curves
        same_codes = np.dtype(plan.info.dtype) == np.dtype(dtype) and same_curves
        return cls(
            light=light,
            dtype=dtype,
            same_curves=same_curves,
            same_codes=same_codes,
            is_unchanged=job.recipe.solver == "identity" and same_codes,
            is_dithered=plan.settings.dither and dtype == "uint8" != plan.info.dtype and not light.is_premultiplied,
        )


def block_samples(plan: Plan, job: Job, box: Box, drawn: FloatArray | None, dtype: str) -> Samples:
    """Return a part of the output, gray or RGB and further channels.

    Input samples are kept where nothing is restored (the mask is 0, the PSF is a delta) and where there is no data
    (nodata, transparent, NaN).

    Parameters
    ----------
    plan : Plan
        The plan of the run.
    job : Job
        Job with a complete result.
    box : Box
        The part.
    drawn : ndarray of float32, shape (h, w), optional
        The user's mask of this part.
    dtype : str
        dtype of the samples.

    Returns
    -------
    ndarray of `dtype`, shape (h, w, channels)
    """
    info, encoding = plan.info, Encoding.of(plan, job, dtype)
    area = (slice(None), slice(box.y0, box.y1), slice(box.x0, box.x1))
    result = job.result.read(*area)  # a chunk holds all planes: decode it once
    mask = weight(drawn, result[info.colours :])
    has_gaps = job.light.channels_read > info.colours or job.light.nodata is not None or info.is_float
    needs_source = mask is not None or info.extras or encoding.is_unchanged or has_gaps
    source = job.source.read(*area) if needs_source else None
    planes: Iterable[FloatArray] = result[: info.colours]
    if mask is not None and source is not None:
        starts = start_and_data(source, job.light)
        planes = (composite(plane, start, mask) for plane, (start, _) in zip(planes, starts, strict=True))
    out = np.empty((*box.shape, info.channels), dtype)
    for channel, plane in enumerate(planes):
        out[:, :, channel] = _encoded(encoding, channel, plane, source, box)
    if source is not None:
        _keep(out, source, mask, job.light, encoding)
        for channel in range(info.colours, info.channels):
            out[:, :, channel] = rescaled(source[channel], dtype)
    return out


def weight(drawn: FloatArray | None, planes: FloatArray) -> FloatArray | None:
    """Return the weight of the restored image in a part of the output, 0..1; None means 1 everywhere.

    `drawn` is the user's mask of this part; `planes` are the result's planes beyond the colours: the mask of
    a selective restoration, or none.
    """
    if drawn is None and not len(planes):
        return None
    mask = np.ones(planes.shape[1:], np.float32)
    for plane in planes:
        mask *= plane
    if drawn is not None:
        mask *= drawn
    return mask


def _encoded(encoding: Encoding, channel: int, plane: FloatArray, source: Samples | None, box: Box) -> Samples:
    """Encode a colour plane; multiply it by the alpha of `source` (channels, h, w) if the file is premultiplied."""
    light, dtype = encoding.light, encoding.dtype
    if encoding.is_dithered:
        return dithered(light.encoded(channel, plane, "uint16"), box.y0, box.x0, channel)
    if not light.is_premultiplied or light.alpha is None or source is None:
        return light.encoded(channel, plane, dtype)
    alpha = rescaled(source[light.alpha], "float32")
    colour = light.encoded(channel, plane, "float32") * alpha
    if np.dtype(dtype).kind == "f":
        return saturated(colour, dtype)
    codes: Samples = np.clip(np.rint(colour * np.float32(np.iinfo(dtype).max)), 0, rescaled(source[light.alpha], dtype))
    return codes.astype(dtype)


def _keep(out: Samples, source: Samples, mask: FloatArray | None, light: Light, encoding: Encoding) -> None:
    """Copy the samples of `source` (channels, h, w) that are kept to `out` (h, w, channels)."""
    outside = hidden(source, light)
    is_float = source.dtype.kind == "f"
    for channel in range(light.colours):
        samples = source[channel]
        kept = np.full(samples.shape, encoding.is_unchanged)
        if outside is not None:
            kept |= outside
        if is_float:
            kept |= ~np.isfinite(samples)
        if mask is not None and encoding.same_codes:
            kept |= mask == 0
        level = np.float32(CLIPPED * light.clipping(channel))
        if is_float and encoding.same_codes and np.isfinite(level):
            clipped = (samples >= level * np.float32(light.unit)) & ~kept
            np.maximum(out[:, :, channel], samples, out=out[:, :, channel], where=clipped)  # blending rounds
        if kept.any():
            np.copyto(out[:, :, channel], _copied(samples, channel, light, encoding), where=kept)


def _copied(samples: Samples, channel: int, light: Light, encoding: Encoding) -> Samples:
    """Return samples of the input as samples of the output."""
    if encoding.same_curves:
        return rescaled(samples, encoding.dtype)
    return encoding.light.encoded(channel, light.linear(channel, samples), encoding.dtype)


def rescaled(samples: Samples, dtype: str) -> Samples:
    """Convert samples between types; full scale maps to full scale."""
    if samples.dtype == np.dtype(dtype):
        return samples
    full = np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else 1
    share = samples.astype(np.float64) / full
    if np.dtype(dtype).kind == "f":
        return saturated(share, dtype)
    top = np.iinfo(dtype).max
    return np.clip(np.rint(np.nan_to_num(share) * top), 0, top).astype(dtype)
