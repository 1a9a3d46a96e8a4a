"""The result into a file: masks applied, encoded, a band of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.refocus import composite
from tilepipe.image.linearise import fill
from tilepipe.image.mask import DrawnMask, write_mask
from tilepipe.image.write import TILE, output_light, write_tiff
from tilepipe.planning import Plan
from tilepipe.runtime.ahead import ahead
from tilepipe.runtime.events import Listener, Note, Receipt, StageEnd, StageStart
from tilepipe.runtime.job import Job

__all__ = ["export"]

FloatArray = npt.NDArray[np.float32]

Piece = tuple[int, int, FloatArray | None]
"""Rows y0, y1 and the mask drawn for them."""


def export(plan: Plan, job: Job, on_event: Listener, check: Callable[[], None], *, overwrite: bool) -> None:
    """Stream the result into the output, and the mask into its file when one is asked for.

    `check` raises when the run has to stop; it is asked before every band.  Files that stand there are replaced
    only with `overwrite`.
    """
    info, drawn = plan.info, plan.settings.mask
    on_event(StageStart("export", -(-info.height // TILE)))
    if info.metadata.dropped:
        on_event(Note(f"note     {', '.join(info.metadata.dropped)} cannot be carried over and is left out"))
    with closing(DrawnMask(drawn, info)) if drawn else nullcontext() as mask:

        def pieces() -> Iterator[Piece]:
            for y0 in range(0, info.height, TILE):
                check()
                y1 = min(y0 + TILE, info.height)
                yield y0, y1, None if mask is None else mask.rows(y0, y1)

        def bands() -> Iterator[npt.NDArray[Any]]:
            for index, band in enumerate(ahead(lambda piece: _band(plan, job, *piece), pieces(), plan.memory.threads)):
                on_event(Receipt("export", str(index), "done"))
                yield band

        assert plan.output is not None
        write_tiff(plan.output, info, plan.dtype, bands(), plan.record, overwrite=overwrite)
        if plan.settings.save_mask:
            everywhere = np.ones((TILE, info.width), np.float32)

            def shares(y0: int, y1: int) -> FloatArray:
                found = job.result.read(slice(info.colours, None), slice(y0, y1), slice(None))
                share = _mask(None if mask is None else mask.rows(y0, y1), found)
                return everywhere[: y1 - y0] if share is None else share

            write_mask(Path(plan.settings.save_mask), info.height, info.width, shares, overwrite=overwrite)
    on_event(StageEnd("export"))


def _mask(drawn: FloatArray | None, found: FloatArray) -> FloatArray | None:
    """Return how much of the restored picture to take in some rows; None for all of it.

    `drawn` is the mask drawn for them; `found` are the result's planes beyond the colours: the mask of a selective
    restoration, or none.
    """
    if drawn is None and not len(found):
        return None
    mask = np.ones(found.shape[1:], np.float32)
    for plane in found:
        mask *= plane
    if drawn is not None:
        mask *= drawn
    return mask


def _band(plan: Plan, job: Job, y0: int, y1: int, drawn: FloatArray | None) -> npt.NDArray[Any]:
    """Return rows y0..y1 of the output; where the mask is 0, the input's own samples."""
    info, light = plan.info, output_light(plan.info, plan.dtype)
    result = job.result.read(slice(None), slice(y0, y1), slice(None))  # a chunk holds all planes: decoded once
    mask = _mask(drawn, result[info.colours :])
    out = np.empty((y1 - y0, info.width, info.channels), plan.dtype)
    whole = mask is not None or info.extras
    source = job.source.read(slice(None), slice(y0, y1), slice(None)) if whole else None
    for channel in range(info.colours):
        plane = result[channel]
        if mask is None or source is None:
            out[:, :, channel] = light.encoded(channel, plane, plan.dtype)
            continue
        samples = source[channel]
        original = fill(job.light.linear(channel, samples)[None])[0]
        out[:, :, channel] = light.encoded(channel, composite(plane, original, mask), plan.dtype)
        if samples.dtype == out.dtype:
            np.copyto(out[:, :, channel], samples, where=mask == 0)
    if source is not None:
        for channel in range(info.colours, info.channels):
            out[:, :, channel] = _rescaled(source[channel], plan.dtype)
    return out


def _rescaled(samples: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Convert an extra channel (alpha) between sample types: full scale stays full scale."""
    if samples.dtype == np.dtype(dtype):
        return samples
    full = np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else 1
    share = samples.astype(np.float64) / full
    if np.dtype(dtype).kind == "f":
        return share.astype(dtype)
    top = np.iinfo(dtype).max
    return np.clip(np.rint(np.nan_to_num(share) * top), 0, top).astype(dtype)
