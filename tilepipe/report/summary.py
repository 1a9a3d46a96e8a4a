"""Plans and run reports as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

from tilepipe.execution.batch import Outcome, OutcomeStatus
from tilepipe.execution.pipeline import RunReport
from tilepipe.planning.plan import Plan, WorkersPlan
from tilepipe.planning.seam_error import SEAM_LIMIT
from tilepipe.units import human_bytes

__all__ = ["duration", "failure_lines", "outcome_line", "plan_lines", "report_lines", "workers_line"]


def plan_lines(plan: Plan) -> list[str]:
    """Return a summary of the plan, one line per topic."""
    info, recipe, grid, memory, disk = plan.info, plan.recipe, plan.grid, plan.memory, plan.disk
    height, width = grid.frame_shape
    fits = "fits" if memory.projected <= memory.allowed else "DOES NOT FIT"
    stages = ", ".join(f"{name} {human_bytes(size)}" for name, size in memory.stages.items())
    return [
        f"image    {info.path.name}  {info.width} x {info.height} x {info.channels}  {info.dtype}  "
        f"{info.kind}, {info.layout}, {info.compression};  {info.curve_note}",
        f"psf      {plan.blur_text}",
        f"recipe   {_recipe_text(plan)}",
        f"tiles    {grid.tiles} cores of up to {max(_core_shape(plan))} px, halo {recipe.halo} px, "
        f"frames {width} x {height}, read amplification {grid.amplification:.2f}",
        f"seams    {_seam_text(plan)}",
        f"memory   {human_bytes(memory.projected)} projected of {human_bytes(memory.allowed)} allowed, "
        f"{memory.jobs} {'tile' if memory.jobs == 1 else 'tiles'} in flight ({stages}): {fits}",
        f"disk     cache up to {human_bytes(disk.cache)} in {plan.root}"
        + (f" ({human_bytes(disk.cache_free)} free)" if disk.cache_free is not None else "")
        + (f", output {human_bytes(disk.output)}" if disk.output else ""),
        f"time     about {duration(plan.seconds)}",
    ]


def workers_line(workers: WorkersPlan) -> str:
    """Return what the workers of a cluster need, as a line of the plan."""
    return (
        f"workers  {workers.number} with {workers.jobs} {'tile' if workers.jobs == 1 else 'tiles'} in flight "
        f"(tilepipe worker --jobs {workers.jobs} --memory {workers.memory // 10**6}MB): "
        f"about {duration(workers.seconds)} if they are as fast as this machine"
    )


def _recipe_text(plan: Plan) -> str:
    recipe, parameters = plan.recipe, plan.recipe.parameters
    increase = " at the mean light, increasing with light" if parameters.slope else ""
    noise = f"noise {100 * recipe.noise:.2g} %{increase}"
    if recipe.solver == "identity":
        return f"identity;  {noise}"
    scope = ", luminance only" if recipe.luminance_only else ""
    scope += ", blurred regions only" if parameters.misfit_limit else ""
    scope += ", within the mask" if plan.settings.mask else ""
    if recipe.solver == "cosines":
        return f"cosine coefficients below {parameters.low:.2g} to {parameters.high:.2g} removed{scope};  {noise}"
    steps = f"{parameters.steps} + {len(parameters.closing)}" if parameters.closing else f"{parameters.steps}"
    weights = f"lambda {parameters.lam:.3g}" + (f", r1 {parameters.r1:.3g}" if parameters.r1 else "")
    if recipe.solver == "richardson-lucy":
        weights += f", PSF applied by {parameters.convolution}"
    return f"{recipe.solver}, {steps} steps, {weights}{scope};  {noise}, priority {recipe.priority:+g}"


def _seam_text(plan: Plan) -> str:
    tuning = plan.tuning
    if plan.recipe.solver == "identity" or plan.grid.tiles == 1:
        return "none" if plan.recipe.solver == "identity" else "none: one tile"
    text = f"at most {plan.seam:.1e} predicted (limit {SEAM_LIMIT:.1e})"
    if tuning.psnr_cost_db:
        text += f"; softer data term for a narrower halo costs about {tuning.psnr_cost_db:.1f} dB"
    if plan.seam > SEAM_LIMIT:
        text += "; above the limit: seams may be visible, omit --halo to choose it automatically"
    return text


def _core_shape(plan: Plan) -> tuple[int, int]:
    rows, columns = plan.grid.row_edges, plan.grid.column_edges
    return (
        max(b - a for a, b in pairwise(rows)),
        max(b - a for a, b in pairwise(columns)),
    )


def report_lines(report: RunReport) -> list[str]:
    """Return the tiles, time and memory of a run, and notes."""
    tiles, memory = report.tiles, report.memory
    lines = [
        f"done     {tiles['total']} tiles ({tiles['reused']} reused, {tiles['computed']} computed, "
        f"{tiles['repaired']} repaired) in {duration(report.seconds)}; "
        f"peak {human_bytes(memory['peak'])} of {human_bytes(memory['projected'])} projected"
    ]
    if report.not_finite:
        lines.append(f"note     {report.not_finite} samples are NaN or infinite; they were treated as unknown")
    if report.plan.settings.keep_cache:
        lines.append(f"cache    kept in {report.folder} (tilepipe cache rm removes it)")
    return lines


def failure_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return one line for each image that failed."""
    return [f"tilepipe: {one.image} (exit {one.code}): {one.error}" for one in outcomes if one.status == "failed"]


def outcome_line(outcomes: Sequence[Outcome]) -> str:
    """Return a count of what became of several images."""
    counts = Counter(one.status for one in outcomes)
    text = ", ".join(f"{counts[status]} {status}" for status in get_args(OutcomeStatus) if counts[status])
    return f"images   {len(outcomes)}: {text or 'none'}"


def duration(seconds: float) -> str:
    """Format a duration: ``4.2 s``, ``3 min 20 s``, ``1 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
