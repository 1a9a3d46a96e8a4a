"""Every verb on a small picture: the answer on stdout, nothing but it, and what it says is so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from tilepipe.psf.model import PSF
from tilepipe.psf.shape_fit import fit_shape
from tilepipe.psf.shapes import gaussian, motion


def answer(done: Any) -> Any:
    """The one JSON object on stdout of a call that went well."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def here(*arguments: object) -> Any:
    """Call a verb in this process: most of a call's second is the imports."""
    from tilepipe.cli.main import tilepipe as group

    return CliRunner().invoke(group, [str(argument) for argument in arguments], catch_exceptions=False)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with size and time of change."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


# --- psf


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["gaussian", "--sigma", 1.5], gaussian(1.5)),
        (["motion", "--length", 9, "--angle", 30, "--size", 15], motion(9, 30, 15)),
    ],
)
def test_psf_make_writes_the_shape_and_prints_its_path(command, tmp_path, arguments, expected):
    done = command("psf", "make", *arguments, "-o", "psf.tif", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "psf.tif\n", "")
    made = PSF.load(tmp_path / "psf.tif")
    np.testing.assert_array_equal(made.kernel, expected.kernel)
    assert made.made_by == expected.made_by


def test_psf_make_overwrites_when_asked(command, tmp_path):
    (tmp_path / "psf.tif").write_bytes(b"old")
    done = command("psf", "make", "disk", "--radius", 2, "-o", "psf.tif", "--overwrite", cwd=tmp_path)
    assert done.returncode == 0
    assert PSF.load(tmp_path / "psf.tif").size == 7


def test_psf_show_draws_it(tilepipe, psf):
    done = tilepipe("psf", "show", psf)
    assert (done.returncode, done.stderr) == (0, "")
    first, facts, nearest, *drawing = done.stdout.splitlines()
    assert "5 x 5" in first
    assert "angle 30" in first
    assert "centroid +0.00, +0.00 px" in facts
    assert nearest == f"nearest {fit_shape(PSF.load(psf).kernel)}"
    assert len(drawing) == 5
    # 30 degrees, counter-clockwise: ink at the upper right and the lower left, none opposite
    ink = [row.ljust(10) for row in drawing]
    assert ink[1][8] != " "
    assert ink[3][0] != " "
    assert ink[1][0] == ink[3][8] == " "


def test_psf_show_as_json(command, psf):
    facts = answer(command("psf", "show", psf, "--json"))
    loaded = PSF.load(psf)
    assert facts == {"file": str(psf), **loaded.facts(), "nearest": fit_shape(loaded.kernel).facts()}


def test_psf_show_names_the_shape_that_was_made(tmp_path):
    motion(11, 34).save(tmp_path / "psf.tif")
    assert "\nnearest motion, 11.0 px, 34 degrees; fit 1.00\n" in here("psf", "show", tmp_path / "psf.tif").stdout
    nearest = json.loads(here("psf", "show", tmp_path / "psf.tif", "--json").stdout)["nearest"]
    assert set(nearest) == {"shape", "parameters", "fit"}
    assert nearest["parameters"] == pytest.approx({"length": 11, "angle": 34}, rel=0.01)


def test_psf_show_writes_a_picture_and_prints_its_path_last(psf, tmp_path):
    png = tmp_path / "psf.png"
    plain, pictured = here("psf", "show", psf), here("psf", "show", psf, "--png", png)
    assert pictured.stdout == f"{plain.stdout}{png}\n"
    assert png.read_bytes().startswith(b"\x89PNG")
    png.write_bytes(b"old")
    as_json = here("psf", "show", psf, "--json", "--png", png, "--overwrite")
    assert json.loads(as_json.stdout)["png"] == str(png)
    assert as_json.stdout.count("\n") == 1
    assert png.read_bytes().startswith(b"\x89PNG")


# --- inspect


def test_inspect_says_what_a_picture_is(command, photo):
    facts = answer(command("inspect", photo, "--json"))
    noise = facts.pop("noise")
    assert 0.0005 < noise < 0.02
    assert isinstance(facts.pop("noise_grows"), bool)
    assert facts == {
        "file": str(photo),
        "kind": "TIFF",
        "width": 200,
        "height": 160,
        "megapixels": 0.03,
        "channels": 3,
        "alpha": 0,
        "dtype": "uint16",
        "layout": "5 strips",
        "compression": "none",
        "curve": "sRGB (no ICC profile)",
        "decoding_bytes": 0,
        "metadata": {"icc": 0, "exif": 0, "gps": 0, "xmp": 0, "iptc": 0, "resolution": [1.0, 1]},
        "converted": [],
        "not_carried_over": [],
    }


def test_inspect_knows_a_psf(command, psf):
    facts = answer(command("inspect", psf, "--json"))
    assert (facts["width"], facts["height"], facts["dtype"]) == (5, 5, "float32")
    assert facts["psf"] == PSF.load(psf).facts()


def test_inspect_in_words(photo):
    done = here("inspect", photo)
    assert (done.exit_code, done.stderr) == (0, "")
    for fact in ("uint16", "5 strips", "sRGB (no ICC profile)", "200", "160"):
        assert fact in done.stdout


# --- config


def test_config_show_names_every_origin(command, tmp_path):
    (tmp_path / "tilepipe.toml").write_text('priority = "deblur"\ntile = 300\n')
    (tmp_path / "mine.toml").write_text("tile = 400\n")
    arguments = ["config", "show", "--config", "mine.toml", "--set", "halo=64"]
    settings = answer(command(*arguments, "--json", cwd=tmp_path, TILEPIPE_MEMORY="1GB"))
    assert {key: tuple(entry.values()) for key, entry in settings.items() if entry["origin"] != "default"} == {
        "priority": ("deblur", "tilepipe.toml"),
        "tile": (400, "mine.toml"),
        "memory": ("1GB", "environment"),
        "halo": (64, "--set"),
    }
    lines = command(*arguments, cwd=tmp_path, TILEPIPE_MEMORY="1GB").stdout.splitlines()
    assert len(lines) == len(settings)
    assert ["tile", "400", "mine.toml"] in [line.split() for line in lines]
    assert ["jobs", "automatic", "default"] in [line.split() for line in lines]


def test_config_check(command, tmp_path):
    (tmp_path / "good.toml").write_text("tile = 400\n")
    done = command("config", "check", "good.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "good.toml is valid\n")


# --- plan


def test_plan_as_json_says_everything_and_writes_nothing(tilepipe, photo, psf, tmp_path):
    before = tree(tmp_path), tree(photo.parent), tree(psf.parent)
    arguments = ["plan", photo, "-o", "out.tif", "--psf", psf, "--cache", "cache", "--memory", "1GB", "--tile", 128]
    plan = answer(tilepipe(*arguments, "--json", cwd=tmp_path))
    assert (tree(tmp_path), tree(photo.parent), tree(psf.parent)) == before
    assert {"image", "recipe", "psf", "halo", "tile", "tiles", "seam", "memory", "disk", "seconds", "cache"} <= set(
        plan
    )
    assert (plan["image"], plan["width"], plan["height"], plan["channels"]) == (str(photo), 200, 160, 3)
    assert (plan["psf"]["size"], plan["tile"], plan["tiles"]) == (5, 128, 4)
    assert {"solver", "lambda", "steps", "noise", "priority"} <= set(plan["recipe"])
    memory = plan["memory"]
    assert memory["allowed"] == 10**9
    assert memory["projected"] == max(memory["stages"].values()) <= 10**9
    assert set(memory["stages"]) == {"plan", "ingest", "restore", "export"}
    assert 1 <= memory["jobs"] <= 4
    assert plan["seam"]["predicted"] <= plan["seam"]["limit"] == pytest.approx(1 / 255, abs=1e-5)
    assert plan["disk"]["output"] >= 200 * 160 * 6
    assert plan["halo"] % 16 == 0
    assert plan["halo"] > 0


def test_plan_says_what_workers_need(photo, psf):
    arguments = ["plan", photo, "--psf", psf, "--quality", "fast", "--tile", 128, "--jobs", 4, "--workers", 50]
    workers = json.loads(here(*arguments, "--json").stdout)["workers"]
    assert (workers["number"], workers["jobs"]) == (50, 4)
    assert 1e8 < workers["memory"] < 1e9
    assert workers["seconds"] >= 0
    assert "tilepipe worker --jobs 4 --memory" in here(*arguments).stdout


def test_plan_in_words_is_shown_even_if_it_does_not_fit(command, photo, psf, tmp_path):
    done = command("plan", photo, "--psf", psf, "--memory", "50MB", "--cache", "cache", cwd=tmp_path)
    assert done.returncode == 5
    assert "DOES NOT FIT" in done.stdout
    assert len(done.stdout.splitlines()) >= 6
    assert done.stderr.startswith("tilepipe: needs ")
    assert list(tmp_path.iterdir()) == []


# --- run, and what it leaves


@pytest.fixture(scope="module")
def finished(tilepipe, photo, psf, tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """One run, kept: its JSON answer and the folder with out.tif and cache.

    A process of its own: that of the tests may already hold most of the memory that is allowed here.
    """
    folder = tmp_path_factory.mktemp("run")
    arguments = ["run", photo, "-o", "out.tif", "--psf", psf, "--cache", "cache", "--memory", "1GB", "--tile", 128]
    return answer(tilepipe(*arguments, "--json", cwd=folder)), folder


def run_name(report: dict[str, Any]) -> str:
    folder = Path(report["cache"])
    return f"{folder.parent.name}/{folder.name}"


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of the kept cache that may be harmed."""
    shutil.copytree(finished[1] / "cache", tmp_path / "cache")
    return tmp_path


def test_run_as_json_keeps_the_contract(finished, psf):
    report, folder = finished
    assert {"output", "seconds", "tiles", "memory", "psf", "recipe", "halo", "tile", "cache"} <= set(report)
    assert report["output"] == "out.tif"
    assert report["seconds"] > 0
    assert report["tiles"] == {"total": 4, "computed": 4, "reused": 0, "repaired": 0, "failed": 0}
    assert set(report["memory"]) == {"allowed", "projected", "peak"}
    assert report["memory"]["allowed"] == 10**9
    assert all(isinstance(size, int) and size > 10**7 for size in report["memory"].values())
    assert report["psf"] == {"size": 5, "confidence": None, "file": str(psf)}
    assert {"solver", "lambda", "steps", "noise", "priority"} <= set(report["recipe"])
    assert (report["recipe"]["solver"], report["tile"]) == ("tv", 128)
    assert (folder / report["cache"] / "recipe.json").is_file()
    assert not list(folder.glob("*.partial"))


def test_the_output_says_how_it_was_made_and_nothing_of_where_and_when(finished, command, psf):
    report, folder = finished
    record = answer(command("inspect", folder / "out.tif", "--json"))["restored_by_tilepipe"]
    assert report["recipe"].items() <= record.items()
    assert record["psf"] == PSF.load(psf).digest
    assert set(record) == set(report["recipe"]) | {"tilepipe", "psf", "halo", "tile"}


def test_run_writes_a_picture_like_the_input(finished, photo):
    before, after = tifffile.imread(photo), tifffile.imread(finished[1] / "out.tif")
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    assert not np.array_equal(after, before)
    assert after.mean() == pytest.approx(before.mean(), rel=0.01)


def test_a_second_run_reuses_every_tile_and_writes_the_same_bytes(tilepipe, copy, photo, psf, finished):
    arguments = ["run", photo, "-o", "out.tif", "--psf", psf, "--cache", "cache", "--tile", 128]
    done = tilepipe(*arguments, "--memory", "900MB", "-j", 1, cwd=copy)
    assert done.stdout == "out.tif\n"
    assert "4 reused, 0 computed" in done.stderr
    assert (copy / "out.tif").read_bytes() == (finished[1] / "out.tif").read_bytes()


def test_quiet_overwrite_and_drop_cache(command, photo, tmp_path):
    """A PSF that changes nothing: the picture comes back as it was, over the old file, and no cache stays."""
    PSF(np.ones((1, 1))).save(tmp_path / "delta.tif")
    (tmp_path / "out.tif").write_bytes(b"old")
    arguments = ["run", photo, "-o", "out.tif", "--psf", "delta.tif", "--cache", "cache"]
    done = command(*arguments, "--overwrite", "--drop-cache", "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.tif\n", "")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), tifffile.imread(photo))
    assert list((tmp_path / "cache").glob("*/*/recipe.json")) == []
    assert list((tmp_path / "cache").rglob("*.zarr")) == []


# --- status and cache


def test_status_of_a_complete_run(command, finished, photo):
    report, folder = finished
    status = answer(command("status", "cache", "--json", cwd=folder))
    (run,) = status["runs"]
    assert (run["run"], run["image"]) == (run_name(report), str(photo))
    assert run["tiles"] == {"done": 4, "total": 4}
    assert run["source"]["done"] == run["source"]["total"] > 0
    assert run["result"]["done"] == run["result"]["total"] > 0
    assert (run["damaged"], run["complete"]) == (0, True)
    words = here("status", folder / "cache").stdout
    assert "tiles 4/4" in words
    assert "complete" in words


def harm(cache: Path, store: str) -> None:
    """Flip one byte in the largest file of one of the cache's arrays."""
    (folder,) = cache.glob(f"*/*/{store}")
    chunk = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)


def test_verify_finds_one_flipped_byte(command, copy):
    sound = command("cache", "verify", "--cache", "cache", cwd=copy)
    assert (sound.returncode, sound.stderr) == (0, "")
    assert "none damaged" in sound.stdout
    harm(copy / "cache", "tiles.zarr")
    damaged = command("cache", "verify", "--cache", "cache", cwd=copy)
    assert (damaged.returncode, damaged.stdout) == (7, "")
    piece, verdict = damaged.stderr.splitlines()
    assert piece.startswith("damaged  ")
    assert " tile " in piece
    assert verdict.startswith("tilepipe: 1 of ")


def test_status_finds_what_a_run_would_make_anew(command, copy):
    harm(copy / "cache", "tiles.zarr")
    harm(copy / "cache", "result.zarr")
    (run,) = answer(command("status", "cache", "--json", cwd=copy))["runs"]
    assert run["tiles"] == {"done": 3, "total": 4}
    assert run["result"]["done"] == run["result"]["total"] - 1
    assert (run["damaged"], run["complete"]) == (2, False)
    assert "run the same command" in run["verdict"]


def test_cache_ls_lists_what_runs_need(command, finished, photo):
    report, folder = finished
    listing = answer(command("cache", "ls", "--cache", "cache", "--json", cwd=folder))
    (run,) = listing["runs"]
    assert (run["run"], run["image"], run["tile"], run["halo"]) == (run_name(report), str(photo), 128, report["halo"])
    assert run["bytes"] > 100_000
    assert run_name(report) in here("cache", "ls", "--cache", folder / "cache").stdout


def test_cache_ls_of_nothing_is_no_error(tmp_path):
    done = here("cache", "ls", "--cache", tmp_path / "nothing")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "holds no runs" in done.stderr
    assert json.loads(here("cache", "ls", "--cache", tmp_path / "nothing", "--json").stdout)["runs"] == []
    assert list(tmp_path.iterdir()) == []


def test_cache_rm_removes_the_run_and_its_source_and_nothing_else(command, copy, finished):
    (copy / "cache" / "notes.txt").write_text("mine")
    done = command("cache", "rm", "--cache", "cache", run_name(finished[0]), cwd=copy)
    assert done.returncode == 0
    assert run_name(finished[0]) in done.stdout
    assert list((copy / "cache").rglob("*.zarr")) == []
    assert (copy / "cache" / "notes.txt").read_text() == "mine"
    assert (finished[1] / "out.tif").is_file()
