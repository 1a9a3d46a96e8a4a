"""Memory: what each stage holds, summed; how many tiles may be in flight.

Three words, never mixed: *allowed* is the user's budget, *projected* what this model says the run will
need at most, *peak* what was measured afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilepipe.errors import DoesNotFitError
from tilepipe.tiling.grid import SMALLEST_CORE, Grid
from tilepipe.units import human_bytes

__all__ = ["MemoryPlan", "StageModel", "check_memory", "plan_memory"]

SLACK = 1.05
"""What allocators and page tables add to the sum, measured at 1..4 %."""

RUNTIME = 54_000_000
"""Bytes by which the process grows beside what it works on: graph, event loop, codecs, what the heaps keep."""

CODEC_COPIES = 2
"""Copies of a chunk alive while it is encoded or decoded: the array and its compressed bytes."""


@dataclass(frozen=True, slots=True)
class StageModel:
    """Sizes from which the stages' memory follows; bytes unless said otherwise.

    Parameters
    ----------
    process : the interpreter with everything imported and compiled, measured.
    decoded : what decoding the input holds at once (whole picture for JPEG and PNG, segments for TIFF).
    pixel : one pixel of the source, all channels, in the file's own dtype.
    channels : channels that are restored.
    stored : planes of a tile and of the result.
    planning : what planning held at its peak (sample, probes, compiler, a decoded JPEG): measured, it is over.
    planes : float32 planes of a workspace; 0 when nothing is solved.
    extra : further planes of a frame, for finding what is blurred or for the colours beside the luminance.
    mask : what reading a drawn mask holds while the result is written.
    kernels : of the PSF, one for all colours or one each.
    band : picture rows that are ingested and exported at a time, px.
    chunk : pixels of one chunk of the result.
    """

    process: int
    decoded: int
    pixel: int
    channels: int
    stored: int
    planning: int
    planes: int
    extra: int
    mask: int
    kernels: int
    band: int
    chunk: int

    def ingest(self, grid: Grid, threads: int) -> int:
        """Return what decoding one band and storing others on `threads` hold."""
        band = self.band * grid.width * self.pixel
        return self.process + self.decoded + (1 + CODEC_COPIES * threads) * band

    def shared(self, grid: Grid) -> int:
        """Return what all tiles share: the PSF's transfer functions."""
        return 4 * self.kernels * _area(grid.frame_shape) if self.planes else 0

    def per_job(self, grid: Grid) -> int:
        """Return what one tile in flight holds: its workspace, and source or tile chunks on their way."""
        frame, stored = _area(grid.frame_shape), _area(grid.stored_shape)
        plain = 8 * self.channels * frame  # the decoded frame and its start, when there is no workspace
        workspace = 4 * self.planes * frame if self.planes else plain
        solving = 4 * self.extra * frame
        reading = (self.pixel + 14) * frame  # samples, and what the channel being decoded holds: planes and masks
        writing = CODEC_COPIES * 4 * self.stored * stored
        blending = 2 * CODEC_COPIES * 4 * self.stored * self.chunk  # the chunk, and the rows of tiles that it needs
        return workspace + max(solving, reading, writing, blending)

    def restore(self, grid: Grid, jobs: int) -> int:
        """Return what restoring and blending with `jobs` tiles in flight hold."""
        return self.process + RUNTIME + self.shared(grid) + jobs * self.per_job(grid)

    def export(self, grid: Grid, threads: int) -> int:
        """Return what rows of result chunks hold on their way into the file, one on each of `threads`."""
        band = self.band * grid.width * (3 * 4 * self.stored + 2 * self.pixel)
        return self.process + RUNTIME + threads * band + self.mask


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The decision: jobs, threads for ingest and export, and the stages it was summed from (bytes)."""

    allowed: int
    projected: int
    jobs: int
    threads: int
    stages: dict[str, int]


def plan_memory(model: StageModel, grid: Grid, allowed: int, jobs: int) -> MemoryPlan:
    """Choose how many tiles may be in flight, up to `jobs`.

    Never raises: a plan that does not fit has ``projected > allowed`` and one job, so that it can be read.
    """
    free = allowed / SLACK - model.process - RUNTIME - model.shared(grid)
    fitting = max(1, min(jobs, grid.tiles, int(free // model.per_job(grid))))
    restore = model.restore(grid, fitting)
    beside = max(restore, allowed / SLACK)  # more threads must not be why a run does not fit
    threads = max(
        (n for n in range(1, jobs + 1) if max(model.ingest(grid, n), model.export(grid, n)) <= beside), default=1
    )
    stages = {
        "plan": model.planning,
        "ingest": int(SLACK * model.ingest(grid, threads)),
        "restore": int(SLACK * restore),
        "export": int(SLACK * model.export(grid, threads)),
    }
    return MemoryPlan(allowed, max(stages.values()), fitting, threads, stages)


def check_memory(plan: MemoryPlan, model: StageModel, grid: Grid) -> None:
    """Raise when not even one tile fits.

    Raises
    ------
    DoesNotFitError : with the stage, the figures, and the ``--tile`` or ``--memory`` that would do.
    """
    if plan.projected <= plan.allowed:
        return
    stage = max(plan.stages, key=lambda name: plan.stages[name])
    ways = [f"--memory {-(-plan.projected // 10**6)}MB"]
    smaller = _fitting_core(model, grid, plan.allowed)
    if smaller is not None:
        ways.insert(0, f"--tile {smaller} (other seams, still within 1/255 of the untiled result)")
    detail = f" with one tile of {max(grid.frame_shape)} px in flight" if stage == "restore" else ""
    raise DoesNotFitError(
        f"needs {human_bytes(plan.projected)} for {stage}{detail}, allowed are {human_bytes(plan.allowed)}; "
        f"fits with {' or '.join(ways)}"
    )


def _fitting_core(model: StageModel, grid: Grid, allowed: int) -> int | None:
    """Return the largest multiple of 16 px below the grid's core that fits with one job, if any does."""
    for core in range(grid.core - grid.core % 16, SMALLEST_CORE - 1, -16):
        smaller = Grid(grid.height, grid.width, core, grid.halo)
        if plan_memory(model, smaller, allowed, 1).projected <= allowed:
            return core
    return None


def _area(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]
