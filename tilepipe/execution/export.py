"""Export: apply the masks, encode and write the result, block by block."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.cache.layout import EXPORT_COLUMNS
from tilepipe.dtypes import FloatArray
from tilepipe.events import Listener, Note, Receipt, StageEnd, StageStart
from tilepipe.execution.ingest import check_input_unchanged
from tilepipe.execution.job import Job
from tilepipe.execution.samples import block_samples, rescaled, weight
from tilepipe.image.info import StoredReader
from tilepipe.image.mask import DrawnMask, write_mask
from tilepipe.image.readers import open_stored
from tilepipe.image.writers.beside import write_beside, write_folder_beside
from tilepipe.image.writers.output import BLOCK_ROWS, Output
from tilepipe.planning.plan import Plan
from tilepipe.system.prefetch import prefetch
from tilepipe.tiling.grid import Box

__all__ = ["export"]

Piece = tuple[Box, FloatArray | None, npt.NDArray[Any] | None]
"""A block of the output, the user's mask of it, if any, and its colours as stored in a file of CMYK or Lab."""


def export(plan: Plan, job: Job, on_event: Listener, check: Callable[[], None], *, overwrite: bool) -> None:
    """Write the result to the output, and the mask to its own file if requested.

    Parameters
    ----------
    plan : Plan
        A plan with an output.
    job : Job
        Job with a complete result.
    on_event : Listener
        Receives the events of the stage.
    check : callable
        Called before every block; raises to stop the run.
    overwrite : bool
        Replace existing files.
    """
    info, drawn = plan.info, plan.settings.mask
    on_event(StageStart("export", -(-info.height // BLOCK_ROWS) * -(-info.width // EXPORT_COLUMNS)))
    lost = [] if _is_copied(plan) else info.metadata.dropped + plan.format.lost(info.metadata)
    if lost:
        on_event(Note(f"note     {', '.join(lost)} cannot be carried over and is dropped"))
    with (
        closing(DrawnMask(drawn, info)) if drawn else nullcontext() as mask,
        closing(open_stored(info.path, info.selection)) if plan.space else nullcontext() as reader,
    ):

        def pieces() -> Iterator[Piece]:
            for y0 in range(0, info.height, BLOCK_ROWS):
                check()
                y1 = min(y0 + BLOCK_ROWS, info.height)
                rows = None if mask is None else mask.rows(y0, y1)
                stored = None if reader is None else _stored_rows(plan, reader, y0, y1)
                for x0 in range(0, info.width, EXPORT_COLUMNS):
                    box = Box(y0, y1, x0, min(x0 + EXPORT_COLUMNS, info.width))
                    columns = slice(box.x0, box.x1)
                    yield (
                        box,
                        None if rows is None else rows[:, columns],
                        None if stored is None else stored[:, columns].copy(),  # a view would keep the whole band
                    )

        def blocks() -> Iterator[npt.NDArray[Any]]:
            for index, block in enumerate(
                prefetch(lambda piece: _block(plan, job, *piece), pieces(), plan.memory.threads)
            ):
                on_event(Receipt("export", str(index), "done"))
                yield block

        assert plan.output is not None
        mask_page = _mask_bands(plan, job) if info.has_mask else None
        output = Output(info, plan.dtype, blocks(), plan.record, mask_page, plan.settings.compression, plan.space)
        write = write_folder_beside if plan.format.is_folder else write_beside
        write(plan.output, lambda path: _write(plan, path, output), overwrite=overwrite)
        if plan.settings.save_mask:
            ones = np.ones((BLOCK_ROWS, info.width), np.float32)

            def mask_rows(y0: int, y1: int) -> FloatArray:
                planes = job.result.read(slice(info.colours, None), slice(y0, y1), slice(None))
                share = weight(None if mask is None else mask.rows(y0, y1), planes)
                return ones[: y1 - y0] if share is None else share

            write_mask(Path(plan.settings.save_mask), info, mask_rows, overwrite=overwrite)
    for sidecar, copy in plan.sidecars:
        write_beside(copy, partial(_copy, sidecar), overwrite=overwrite)
    on_event(StageEnd("export"))


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _is_copied(plan: Plan) -> bool:
    """Return whether the output is a copy: a JPEG with unchanged pixels, which encoding it again would change."""
    is_unchanged = plan.recipe.solver == "identity" and not plan.info.notes
    return is_unchanged and plan.format.name == plan.info.kind == "JPEG"


def _write(plan: Plan, path: Path, output: Output) -> None:
    """Write the output, or copy the image."""
    if _is_copied(plan):
        for _ in output.blocks:  # reports the progress, and notices a stop
            pass
        shutil.copyfile(plan.info.path, path)
        return
    plan.format.write(path, output)


def _mask_bands(plan: Plan, job: Job) -> Iterator[npt.NDArray[Any]]:
    """Yield the rows of the input's mask page, bool (rows, width, 1)."""
    for y0 in range(0, plan.info.height, BLOCK_ROWS):
        rows = slice(y0, min(y0 + BLOCK_ROWS, plan.info.height))
        yield job.source.read(slice(plan.info.channels - 1, None), rows, slice(None))[0, :, :, None] != 0


def _stored_rows(plan: Plan, reader: StoredReader, y0: int, y1: int) -> npt.NDArray[Any]:
    """Return rows of the image's colours as stored; raises InputError if its file changed since it was planned."""
    rows = reader.stored_colours(y0, y1)
    check_input_unchanged(plan)
    return rows


def _block(
    plan: Plan, job: Job, box: Box, drawn: FloatArray | None, stored: npt.NDArray[Any] | None
) -> npt.NDArray[Any]:
    """Return the part of the output in `box`, in the colours of the file if they are `stored`."""
    if plan.space is None or stored is None:
        return block_samples(plan, job, box, drawn, plan.dtype)
    info = plan.info
    samples = block_samples(plan, job, box, drawn, info.dtype)
    colours, extras = samples[..., : info.colours], samples[..., info.colours :]
    source = job.source.read(slice(0, info.colours), slice(box.y0, box.y1), slice(box.x0, box.x1))
    changed = (colours != np.moveaxis(source, 0, -1)).any(-1)
    if changed.any():
        stored[changed] = plan.space.from_rgb(colours[changed][None])[0]
    return np.concatenate([stored, rescaled(extras, plan.dtype)], -1) if info.extras else stored
