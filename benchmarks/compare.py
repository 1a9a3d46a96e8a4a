"""Compare two results of the speed benchmark by their ratios: ``make bench-compare``.

    python -m benchmarks.compare [BEFORE.json AFTER.json] [--tolerance 0.1]

Seconds of two runs on a shared machine cannot be compared; ratios measured side by side in one run can: other packages
over ours, the memory floor over a solver's step, the Fourier convolution over the one that is taken, the whole run
over the restoration in it.  Without files, the last two results are compared in which the rows are the same.  The exit
code is 1 if a ratio is worse by more than the tolerance, as a share.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.speed import KEPT, Row

HIGHER, LOWER = {"times ours", "floor / measured", "times the one taken"}, {"whole / restoring"}
"""Ratios of which more is better, and of which less is."""

NAMES = ("Mpx", "PSF", "by", "solver", "way", "jobs")
"""Columns that say what a row is."""


class Change(NamedTuple):
    """A ratio in both results; `change` is the share by which it is better, negative if worse."""

    what: str
    before: float
    after: float
    change: float


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """Return every ratio of a result by its name."""
    found = {}
    for rows in result["tables"].values():
        for row in (*rows, *_convolutions(rows)):
            name = ", ".join(f"{row[column]}" for column in NAMES if column in row)
            own = row.get("by", "").startswith("tilepipe")  # always 1
            found |= {f"{name}: {ratio}": row[ratio] for ratio in HIGHER | LOWER if ratio in row and not own}
    return found


def _convolutions(rows: list[Row]) -> Iterator[Row]:
    """Yield how many times as long the Fourier convolution takes as the one taken, for each PSF."""
    fourier = {row["PSF"]: row["ns/px"] for row in rows if row.get("way") == "Fourier"}
    for row in rows:
        if row.get("taken") and row["way"] != "Fourier":
            yield {"PSF": row["PSF"], "way": "Fourier", "times the one taken": fourier[row["PSF"]] / row["ns/px"]}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Return the ratios that both results have, the worst change first."""
    first, second = ratios(before), ratios(after)
    found = []
    for what in first.keys() & second.keys():
        better = second[what] / first[what] if what.rpartition(": ")[2] in HIGHER else first[what] / second[what]
        found.append(Change(what, first[what], second[what], better - 1))
    return sorted(found, key=lambda change: (change.change, change.what))


def last_two() -> list[Path]:
    """Return the last result and the latest before it on the same processor with the same transforms."""
    results = sorted(KEPT.glob("*-speed*.json"), key=lambda path: (path.name[:10], path.stat().st_mtime))
    machines = {path: json.loads(path.read_text())["machine"] for path in results}

    def kind(path: Path) -> tuple[str, ...]:
        return machines[path]["CPU"], machines[path]["transforms"].split()[0]

    if not results:
        return []
    earlier = [path for path in results[:-1] if kind(path) == kind(results[-1])]
    return [*earlier[-1:], results[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", type=Path, metavar="FILE", help="two JSON files, earlier first")
    parser.add_argument("--tolerance", type=float, default=0.1, help="share by which a ratio may be worse")
    arguments = parser.parse_args()
    files = arguments.results or last_two()
    if len(files) != 2:
        raise SystemExit(
            f"{len(files)} results to compare, two are needed: of one processor and one library of transforms in "
            f"{KEPT}, which make bench writes, or named"
        )
    results = [json.loads(path.read_text()) for path in files]
    found = changes(*results)
    if not found:
        raise SystemExit(f"{files[0]} and {files[1]} have no ratio in common")
    for name, result in zip(files, results, strict=True):
        print(f"- {name.name}: commit {result['machine'].get('commit', 'unknown')}, {result['machine']['CPU']}")
    print("\n| ratio | before | after | change |\n|---|---|---|---|")
    for change in found:
        print(f"| {change.what} | {change.before:.2f} | {change.after:.2f} | {100 * change.change:+.0f} % |")
    worse = [change.what for change in found if change.change < -arguments.tolerance]
    if worse:
        print(f"{len(worse)} of {len(found)} ratios are worse by more than {100 * arguments.tolerance:.0f} %")
        sys.exit(1)


if __name__ == "__main__":
    main()
