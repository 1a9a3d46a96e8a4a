"""Every benchmark runs, at a tiny size, so that none of them rots."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

BENCHMARKS = {
    "seams": ["--width", "420", "--height", "380", "--tiles", "200", "--psfs", "gaussian 2"],
    "restore": ["--made", "--cases", "1", "--edge", "80"],
    "faults": ["--size", "700x300", "--kills", "1", "--damage", "2", "--delete", "1", "--together", "2"],
    "speed": [
        *["--compare", "0.1", "--sizes", "0.1", "--edge", "150", "--steps", "10", "--tiles", "9", "--memory", "1GB"]
    ],
    "photographs": ["made", "--formats", "tiff", "--sigmas", "0.9", "--processes", "1"],
    "wide": ["made"],
    "memory": ["--made", "400x300", "--formats", "tif", "jpg", "--budgets", "1GB", "--jobs", "1"],
    "cluster": ["--workers", "1", "--tiles", "4", "--sleep", "0.05", "--empty", "9"],
    "gigapixel": ["--width", "1000", "--height", "2800", "--band", "2400", "--psf", "3", "--options", "--quality fast"],
    "colour": ["docs/before-after.png"],
    "blind": ["--made", "--cases", "2", "--edge", "95", "--each"],
}


def test_every_benchmark_is_run():
    folder = Path(__file__).parent.parent / "benchmarks"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__", "compare", "pictures", "shift"}
    assert modules == set(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_runs(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", *BENCHMARKS[name]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n|") >= 3
