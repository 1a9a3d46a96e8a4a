"""Nothing lost: processes killed, files damaged, runs at the same time; each time the same bytes in the end.

    python -m benchmarks.faults [--size 3000x2000 --kills 50 --damage 200 --delete 20 --together 2 8]
    python -m benchmarks.faults --size 6000x4000 --kills 5 --damage 0 --delete 0 --together --resume

The scene is made, the PSF given except in the trials killed while the blur is looked for.  "computed again" counts
tiles that the killed process had recorded and the resuming one solved all the same; it must be 0.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tilepipe.cache.layout import MEMO_FOLDER
from tilepipe.events import Note, Receipt
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.psf.shapes import motion
from tilepipe.testing import BlurredScene, Scene, write_scene

PSF = motion(9, 30)
STAGES = ("restore", "ingest", "blend", "export", "estimate")
MARKS = {
    "ingest": "source.ledger/*.json",
    "restore": "tiles.ledger/*.json",
    "blend": "result.ledger/*.json",
}


class Bench:
    """A scene, an undisturbed run of it, and its cache."""

    def __init__(self, folder: Path, width: int, height: int, quality: str) -> None:
        self.folder, self.quality = folder, quality
        self.picture, self.psf = folder / "picture.tif", folder / "psf.tif"
        PSF.save(self.psf)
        write_scene(self.picture, BlurredScene(Scene(width, height), PSF, 0.01))
        self.command(folder / "cache", folder / "out.tif").communicate()
        self.reference = (folder / "out.tif").read_bytes()

    def command(self, cache: Path, output: Path, *, blind: bool = False) -> subprocess.Popen[str]:
        """Begin a run."""
        arguments = [self.picture, "-o", output, "--cache", cache, "-j", 2, "--json", "--quality", self.quality]
        arguments += [] if blind else ["--psf", self.psf]
        command = [sys.executable, "-m", "tilepipe", "run", *map(str, arguments), "--overwrite"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def decided(self, target: Path) -> Path:
        """A cache in which nothing but the decisions is known."""
        (source,) = (path for path in (self.folder / "cache").iterdir() if (path / MEMO_FOLDER).is_dir())
        shutil.copytree(source / MEMO_FOLDER, target / source.name / MEMO_FOLDER)
        shutil.copytree(self.folder / "cache" / "hashes", target / "hashes")
        return target

    def linked(self, target: Path) -> Path:
        """A copy of the finished cache; files are replaced there, never written to."""
        shutil.copytree(self.folder / "cache", target, copy_function=os.link)
        return target


def killed(bench: Bench, number: int, generator: random.Random, undisturbed: bytes | None) -> tuple[str, int, bool]:
    """Kill a run in one of the stages and resume it; return stage, tiles computed again, whether it is equal."""
    stage = STAGES[number % len(STAGES)]
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        cache, output = Path(name) / "cache", Path(name) / "out.tif"
        blind = stage == "estimate"
        process = bench.command(cache if blind else bench.decided(cache), output, blind=blind)
        if blind:
            time.sleep(generator.uniform(1.5, 8))
        else:
            _wait(process, cache, output, stage)
            time.sleep(generator.uniform(0, 0.8 if stage != "restore" else 4))
        process.kill()
        process.communicate()
        recorded = sum(1 for _ in cache.rglob("tiles.ledger/[0-9]*.json"))
        out, error = bench.command(cache, output, blind=blind).communicate()
        if not out:
            raise SystemExit(f"trial {number} ({stage}) did not finish: {error}")
        tiles = json.loads(out)["tiles"]
        again = max(0, tiles["computed"] - (tiles["total"] - recorded))
        return stage, again, output.read_bytes() == (undisturbed if blind else bench.reference)


def _wait(process: subprocess.Popen[str], cache: Path, output: Path, stage: str) -> None:
    while process.poll() is None:
        if output.with_name(output.name + ".partial").exists() if stage == "export" else any(cache.rglob(MARKS[stage])):
            return
        time.sleep(0.005)


def _blind_reference(bench: Bench) -> bytes:
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        bench.command(Path(name) / "cache", Path(name) / "out.tif", blind=True).communicate()
        return (Path(name) / "out.tif").read_bytes()


def damaged(bench: Bench, generator: random.Random, kind: str) -> tuple[str, str, bool]:
    """Damage one file of a cache and run; return the kind of file, what came of it, and whether the bytes are equal."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        cache = bench.linked(Path(name) / "cache")
        if generator.random() < 0.5:  # else tiles of finished chunks are never looked at again
            for record in cache.rglob("result.ledger/*.json"):
                record.unlink()
        pattern = "c.*" if kind == "delete" else "*"
        files = sorted(path for path in cache.rglob(pattern) if path.is_file() and path.stat().st_size)
        file = generator.choice(files)
        content = bytearray(file.read_bytes())
        file.unlink()
        if kind == "flip":
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        if kind != "delete":
            file.write_bytes(content[: generator.randrange(len(content))] if kind == "truncate" else content)
        told, output = [], Path(name) / "out.tif"
        plan = make_plan(
            bench.picture, output, psf=bench.psf, cache=str(cache), jobs=2, quality=bench.quality, on_event=told.append
        )
        plan.run(told.append)
        stages = {event.stage for event in told if isinstance(event, Receipt)} - {"export"}
        planned = not any(isinstance(event, Note) and "as for the run before" in event.text for event in told)
        outcome = "made again" if stages or planned else "harmless"
        return _kind_of(file), outcome, output.read_bytes() == bench.reference


def _kind_of(file: Path) -> str:
    folder = file.parent.name
    return folder if folder.endswith((".zarr", ".ledger")) or folder in ("hashes", MEMO_FOLDER) else file.name


def together(bench: Bench, count: int) -> tuple[Counter[int], bool, str]:
    """Begin `count` runs at once; return their exit codes, whether the result is right, and what the others said."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        cache, output = bench.decided(Path(name) / "cache"), Path(name) / "out.tif"
        runs = [bench.command(cache, output) for _ in range(count)]
        ends = [run.communicate()[1].strip().splitlines()[-1] for run in runs]
        codes = Counter(run.returncode for run in runs)
        refused = next((end for run, end in zip(runs, ends, strict=True) if run.returncode), "")
        return codes, output.read_bytes() == bench.reference, refused.replace(name, "...")


def resume_times(bench: Bench) -> list[tuple[str, float]]:
    """Seconds of the whole process: from nothing but decisions, with a tenth of the tiles left, with nothing left."""
    times = []
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:
        cache, output = bench.decided(Path(name) / "cache"), Path(name) / "out.tif"
        for label, share in (("fresh, blur and halo known", 1.0), ("90 % of tiles done", 0.1), ("finished", 0.0)):
            records = sorted(cache.rglob("tiles.ledger/*.json"))
            if share == 0.1:
                for record in [*records[:: round(1 / share)], *cache.rglob("result.ledger/*.json")]:
                    record.unlink()
            began = time.perf_counter()
            bench.command(cache, output).communicate()
            times.append((label, time.perf_counter() - began))
            assert output.read_bytes() == bench.reference
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="3000x2000", metavar="WxH")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--damage", type=int, default=200, help="files flipped or cut short")
    parser.add_argument("--delete", type=int, default=20, help="chunks deleted")
    parser.add_argument("--together", type=int, nargs="*", default=[2, 8])
    parser.add_argument("--resume", action="store_true", help="time resuming")
    parser.add_argument("--quality", default="normal")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), width, height, options.quality)
        print(f"Faults, {width} x {height} px, quality {options.quality}, seed {options.seed}\n")
        print("| trial | number | result |\n|---|---|---|", flush=True)
        if options.kills:
            print_kills(bench, options.kills, generator)
        kinds = [generator.choice(["flip", "truncate"]) for _ in range(options.damage)]
        for label, analysis in (("flipped or cut short", kinds), ("chunks deleted", ["delete"] * options.delete)):
            if analysis:
                print_damage(bench, label, analysis, generator)
        for count in options.together:
            codes, same, refused = together(bench, count)
            ends = ", ".join(f"{number} x exit {code}" for code, number in sorted(codes.items()))
            print(f"| at once | {count} | {ends}; same bytes: {same}; the others: `{refused}` |", flush=True)
        for label, seconds in resume_times(bench) if options.resume else ():
            print(f"| time, {label} | 1 | {seconds:.1f} s |", flush=True)


def print_kills(bench: Bench, kills: int, generator: random.Random) -> None:
    undisturbed = _blind_reference(bench) if kills >= len(STAGES) else None
    trials = [killed(bench, number, generator, undisturbed) for number in range(kills)]
    for stage in STAGES:
        mine = [(again, same) for name, again, same in trials if name == stage]
        if mine:
            equal, again = sum(same for _, same in mine), sum(again for again, _ in mine)
            print(
                f"| kill -9 in {stage} | {len(mine)} | {equal}/{len(mine)} same bytes, {again} tiles computed again |",
                flush=True,
            )


def print_damage(bench: Bench, label: str, kinds: list[str], generator: random.Random) -> None:
    found: Counter[tuple[str, str]] = Counter()
    equal = 0
    for kind in kinds:
        place, outcome, same = damaged(bench, generator, kind)
        found[place, outcome] += 1
        equal += same
    print(f"| {label} | {len(kinds)} | {equal}/{len(kinds)} same bytes |", flush=True)
    for (place, outcome), count in sorted(found.items()):
        print(f"| ... in {place} | {count} | {outcome} |", flush=True)


if __name__ == "__main__":
    main()
