"""A run from file to file: wall time, Mpx/s, and memory projected against measured, at several sizes.

    python -m benchmarks.endtoend [--sizes 3000x2000 6000x4000 --memory 512MB --jobs 2]

Every size runs in a process of its own, on a scene blurred by 13 px of motion with 0.5 % noise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile


def measure(size: str, memory: str, jobs: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tilepipe", "demo", "-o", folder, "--size", size, "--json", "-q"]
        command += ["--memory", memory, "-j", str(jobs), "--cache", f"{folder}/cache"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["1500x1000", "3000x2000", "6000x4000"])
    parser.add_argument("--memory", default="512MB")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    print(f"memory {arguments.memory}, {arguments.jobs} jobs")
    print(
        "| size | seconds | Mpx/s | tiles | halo | projected MB | peak MB | peak / projected | dB before | dB after |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for size in arguments.sizes:
        r = measure(size, arguments.memory, arguments.jobs)
        width, height = map(int, size.split("x"))
        memory = r["memory"]
        print(
            f"| {size} | {r['seconds']:.1f} | {width * height / 1e6 / r['seconds']:.2f} | {r['tiles']['total']} "
            f"| {r['halo']} | {memory['projected'] / 1e6:.0f} | {memory['peak'] / 1e6:.0f} "
            f"| {memory['peak'] / memory['projected']:.2f} | {r['psnr']['before']} | {r['psnr']['after']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
