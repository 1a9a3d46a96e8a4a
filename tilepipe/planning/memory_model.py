"""Memory model: the sum of what each stage holds, and the number of tiles in flight that follows.

Three terms are kept apart: *allowed* is the user's budget, *projected* is the upper bound that this model predicts for
the run, *peak* is measured afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tilepipe.errors import DoesNotFitError
from tilepipe.system.memory import HEAPS, MOST_KEPT
from tilepipe.tiling.grid import SMALLEST_CORE, Grid
from tilepipe.units import human_bytes

__all__ = [
    "WORKER_SHARE",
    "MemoryPlan",
    "StageModel",
    "check_analysis",
    "check_memory",
    "plan_memory",
    "threads_that_fit",
    "worker_memory",
]

SLACK = 1.05
"""Factor for the overhead of allocators and page tables, measured at 1..4 %."""

RUNTIME = 35_000_000
"""Bytes by which the process grows besides its working data and freed memory: graph, event loop, codecs."""

INEXACT = 1 << 20
"""Bytes by which memory that was measured may be wrong: the kernel counts pages per processor, in batches."""

CODEC_COPIES = 2
"""Copies of a chunk held while it is encoded or decoded: the array and its compressed bytes."""


ANALYSIS = 170_000_000
"""Bytes by which the process grows while windows are restored during planning, kernels compiled (measured)."""


def check_analysis(process: int, decoded: int, inspection: int, allowed: int, streamed: int | None = None) -> None:
    """Raise an error before a large image, or a large part of one, is decoded if planning would not fit then.

    Parameters
    ----------
    process : int
        Memory of the process so far, bytes.
    decoded : int
        What decoding the image holds, as its header states; released before windows are restored.
    inspection : int
        What estimating the blur needs while the image is open; 0 if the blur is given.
    allowed : int
        The user's budget, bytes.
    streamed : int, optional
        What decoding holds with the extra ``stream``; None if that is installed, or does not decode the image by rows.

    Raises
    ------
    DoesNotFitError
        With the figures and the ways out.
    """
    if decoded <= SMALL:
        return

    def peak(decoded: int) -> int:
        return int(SLACK * (process + max(decoded + inspection + OPEN_IMAGE, ANALYSIS)))

    needed = peak(decoded)
    if needed > allowed:
        extra = "after pip install 'tilepipe[stream]', " if streamed and peak(streamed) <= allowed else ""
        raise DoesNotFitError(
            f"planning needs {human_bytes(needed)}, {human_bytes(decoded)} of it for decoding the image, "
            f"{human_bytes(allowed)} are allowed; fits with --memory {-(-needed // 10**6)}MB, {extra}or as "
            "an uncompressed or tiled TIFF"
        )


WORKER_SHARE = 0.95
"""Share of its memory limit at which a worker of a cluster accepts no more tasks; dask's own is 0.8."""

WORKER = 260_000_000
"""Bytes of a worker of a cluster with everything imported and compiled, without freed memory (measured)."""

SMALL = 32_000_000
"""Bytes of an image that are decoded without a check."""

OPEN_IMAGE = 100_000_000
"""Bytes by which the process grows while an image is open: sampled windows, libraries imported (measured)."""


@dataclass(frozen=True, slots=True)
class StageModel:
    """Sizes from which the memory of each stage is computed; bytes unless stated otherwise.

    Parameters
    ----------
    process : int
        The interpreter with everything imported and compiled, measured.
    decoded : int
        What decoding the input holds at once (the whole image, or some rows, of a JPEG or PNG, segments of a TIFF).
    pixel : int
        One pixel of the source, all channels, in the file's dtype.
    channels : int
        Number of channels that are restored.
    stored : int
        Number of planes of a tile and of the result.
    planning : int
        Measured peak of planning (sample, probes, compiler, a decoded JPEG); already released.
    planes : int
        Number of float32 planes of a workspace; 0 when nothing is solved.
    extra : int
        Number of further planes of a frame, for detecting what is blurred or for the colours beside the luminance.
    writing : int
        What a drawn mask, the mask that is written, and encoding the output hold while the result is written.
    kernels : int
        Number of kernels of the PSF: one for all colours, or one each.
    band : int
        Image rows ingested and exported at a time, px.
    columns : int
        Columns exported at a time, px.
    chunk : int
        Number of pixels of one chunk of the result.
    back : int
        Bytes of a pixel of a block for its way back to the colours of the file.
    """

    process: int
    decoded: int
    pixel: int
    channels: int
    stored: int
    planning: int
    planes: int
    extra: int
    writing: int
    kernels: int
    band: int
    columns: int
    chunk: int
    back: int = 0

    def ingest(self, grid: Grid, threads: int) -> int:
        """Return the bytes held while one band is decoded and others are stored on `threads` threads."""
        band = self.band * grid.width * self.pixel
        return self.process + self.decoded + (1 + CODEC_COPIES * threads) * band

    def shared(self, grid: Grid) -> int:
        """Return the bytes shared by all tiles: the PSF's transfer functions."""
        return 4 * self.kernels * _area(grid.frame_shape) if self.planes else 0

    def per_job(self, grid: Grid) -> int:
        """Return the bytes held by one tile in flight: its workspace, and source or tile chunks in transit."""
        frame = _area(grid.frame_shape)
        plain = 8 * self.channels * frame  # the decoded frame and the initial estimate, without a workspace
        workspace = 4 * self.planes * frame if self.planes else plain
        return workspace + self._passing(grid)

    def _passing(self, grid: Grid) -> int:
        """Return the bytes of the arrays that one tile in flight holds in turn, besides its workspace."""
        frame, stored = _area(grid.frame_shape), _area(grid.stored_shape)
        solving = 4 * self.extra * frame
        reading = (self.pixel + 14) * frame  # samples, and planes and masks of the channel being decoded
        writing = CODEC_COPIES * 4 * self.stored * stored
        blending = 2 * CODEC_COPIES * 4 * self.stored * self.chunk  # the chunk, and the tile rows it needs
        return max(solving, reading, writing, blending)

    def kept(self, grid: Grid, jobs: int) -> int:
        """Return the freed memory that the heaps of `jobs` threads keep for the next tile, bytes.

        A heap keeps no more than was used in it.
        """
        return min(MOST_KEPT, self._passing(grid)) * min(jobs, HEAPS)

    def restore(self, grid: Grid, jobs: int) -> int:
        """Return the bytes held while `jobs` tiles in flight are restored and blended."""
        return self.process + RUNTIME + self.kept(grid, jobs) + self.shared(grid) + jobs * self.per_job(grid)

    def jobs_that_fit(self, grid: Grid, jobs: int, limit: float) -> int:
        """Return the largest number of tiles in flight, at most `jobs`, for which `restore` is within `limit` bytes."""
        return next((number for number in range(jobs, 0, -1) if self.restore(grid, number) <= limit), 0)

    def export(self, grid: Grid, threads: int) -> int:
        """Return the bytes held while blocks of result chunks are written to the file, one block per thread."""
        block = self.band * min(grid.width, self.columns) * (3 * 4 * self.stored + 2 * self.pixel + self.back)
        return self.process + RUNTIME + MOST_KEPT + threads * block + self.writing


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Number of jobs, number of threads for ingest and export, and the memory of each stage (bytes)."""

    allowed: int
    projected: int
    jobs: int
    threads: int
    stages: dict[str, int]


def plan_memory(model: StageModel, grid: Grid, allowed: int, jobs: int) -> MemoryPlan:
    """Choose the number of tiles in flight, at most `jobs`.

    Never raises: a plan that does not fit has ``projected > allowed`` and one job, so that it can be shown.
    """
    fitting = max(1, model.jobs_that_fit(grid, min(jobs, grid.tiles), allowed / SLACK))
    restore = model.restore(grid, fitting)
    bound = max(restore, allowed / SLACK)  # additional threads must not make a run exceed its budget
    threads = max(
        (n for n in range(1, jobs + 1) if max(model.ingest(grid, n), model.export(grid, n)) <= bound), default=1
    )
    stages = {
        "plan": model.planning + INEXACT,
        "ingest": int(SLACK * model.ingest(grid, threads)),
        "restore": int(SLACK * restore),
        "export": int(SLACK * model.export(grid, threads)),
    }
    return MemoryPlan(allowed, max(stages.values()), fitting, threads, stages)


def worker_memory(model: StageModel, grid: Grid, threads: int) -> int:
    """Return the memory limit with which a worker of a cluster can hold `threads` tiles in flight, whole megabytes.

    A worker that `tilepipe worker` started pauses at ``WORKER_SHARE`` of its limit.
    """
    return math.ceil(threads_that_fit(model, grid, 0, threads, 0)[0] / WORKER_SHARE / 1e6) * 10**6


def threads_that_fit(model: StageModel, grid: Grid, process: int, threads: int, limit: int) -> tuple[int, int]:
    """Compare the threads of a worker on a cluster with its memory limit.

    Parameters
    ----------
    model : StageModel
        Model of the run. The process that planned it does not count: it may hold anything else.
    grid : Grid
        Tiles of the image.
    process : int
        Memory of the worker so far, bytes; it may not have loaded or compiled everything yet.
    threads : int
        Threads of the worker: each holds one tile in flight.
    limit : int
        Memory limit of the worker, bytes.

    Returns
    -------
    needed : int
        Upper bound of the memory with all threads at work, bytes.
    fitting : int
        Number of threads that fit, 0 if none does.
    """
    worker = replace(model, process=max(WORKER, process))
    needed = int(SLACK * worker.restore(grid, threads))
    return needed, worker.jobs_that_fit(grid, threads, limit / SLACK)


def check_memory(plan: MemoryPlan, model: StageModel, grid: Grid) -> None:
    """Raise an error when not even one tile fits.

    Raises
    ------
    DoesNotFitError
        With the stage, the figures, and the values of ``--tile`` or ``--memory`` that would fit.
    """
    if plan.projected <= plan.allowed:
        return
    stage = max(plan.stages, key=lambda name: plan.stages[name])
    remedies = [f"--memory {-(-plan.projected // 10**6)}MB"]
    smaller = _fitting_core(model, grid, plan.allowed)
    if smaller is not None:
        remedies.insert(0, f"--tile {smaller} (seams move, still within 1/255 of the untiled result)")
    detail = f" with one tile of {max(grid.frame_shape)} px in flight" if stage == "restore" else ""
    raise DoesNotFitError(
        f"needs {human_bytes(plan.projected)} for {stage}{detail}, {human_bytes(plan.allowed)} are allowed; "
        f"fits with {' or '.join(remedies)}"
    )


def _fitting_core(model: StageModel, grid: Grid, allowed: int) -> int | None:
    """Return the largest multiple of 16 px, up to the grid's core, that fits with one job; None if none does."""
    for core in range(grid.core - grid.core % 16, SMALLEST_CORE - 1, -16):
        smaller = Grid(grid.height, grid.width, core, grid.halo)
        if plan_memory(model, smaller, allowed, 1).projected <= allowed:
            return core
    return None


def _area(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]
