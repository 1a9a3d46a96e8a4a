"""What is computed again when something changes: exactly what depends on it."""

import os
import shutil

import numpy as np
import pytest
import tifffile
from workplace import TILES, at, reference

from tilepipe.cache import digests
from tilepipe.cache.digests import digest_of
from tilepipe.errors import InputError, InterruptedRunError
from tilepipe.planning.memo import remember
from tilepipe.psf.shapes import gaussian
from tilepipe.settings import Settings

REUSE, RECOMPUTE = "reuse", "recompute"

TABLE = {
    "psf": ({"psf": gaussian(1.2)}, RECOMPUTE),
    "blur": ({"blur": 9}, REUSE),  # the PSF is given: nobody looks
    "window": ({"window": "100,100,90"}, REUSE),
    "field": ({"field": "none"}, REUSE),
    "psf_per_channel": ({"psf_per_channel": True}, REUSE),
    "force": ({"force": True}, REUSE),
    "priority": ({"priority": 0.25}, RECOMPUTE),
    "quality": ({"quality": "normal"}, RECOMPUTE),
    "solver": ({"solver": "sparse"}, RECOMPUTE),
    "tolerance": ({"tolerance": 4}, RECOMPUTE),
    "mask": ({"mask": "mask.tif"}, REUSE),
    "refocus": ({"refocus": True}, RECOMPUTE),
    "save_mask": ({"mask": "mask.tif", "save_mask": "saved.tif"}, REUSE),
    "luminance_only": ({"luminance_only": True}, RECOMPUTE),
    "tile": ({"tile": 200}, RECOMPUTE),
    "halo": ({"halo": 48}, RECOMPUTE),
    "target": ({"target": 0.5}, REUSE),  # the PSF is given
    "input_curve": ({"input_curve": "linear"}, RECOMPUTE),
    "white": ({"white": "60000"}, RECOMPUTE),
    "nodata": ({"nodata": 3.0}, RECOMPUTE),
    "page": ({"page": 0}, REUSE),  # the file has one page; tests/image/test_pages.py: another page
    "plane": ({"plane": "z=0"}, REUSE),
    "salvage": ({"salvage": True}, REUSE),  # nothing is missing; tests/image/test_salvage.py: a truncated file
    "dtype": ({"dtype": "uint8"}, REUSE),
    "compression": ({"compression": "lzw"}, REUSE),
    "sidecar": ({"sidecar": True}, REUSE),
    "dither": ({"dither": False, "dtype": "uint8"}, REUSE),
    "format": ({"format": "tiff"}, REUSE),
    "max_pixels": ({"max_pixels": 10**8}, REUSE),
    "memory": ({"memory": "3GB"}, REUSE),
    "jobs": ({"jobs": 2}, REUSE),
    "scheduler": (None, REUSE),  # tests/cluster: needs a cluster
    "cache": ({"cache": "elsewhere"}, RECOMPUTE),
    "keep_cache": ({"keep_cache": False}, REUSE),
    "keep_tiles": ({"keep_tiles": False}, REUSE),
    "cache_limit": ({"cache_limit": "20GB"}, REUSE),
    "verify": ({"verify": "quick"}, REUSE),
    "durable": ({"durable": False}, REUSE),
    "max_failures": ({"max_failures": 3}, REUSE),
}
"""Setting -> (another value of it, what that does to the tiles)."""


def test_every_setting_is_in_the_table():
    assert set(TABLE) == set(Settings.__struct_fields__)


QUICK = {"psf", "priority", "dtype", "dither", "tile", "format", "salvage", "page"}
"""Settings that are tried in every run of the tests."""


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.thorough)
        for name, (change, _) in TABLE.items()
        if change
    ],
)
def test_a_setting_invalidates_what_depends_on_it_and_nothing_else(finished, monkeypatch, setting):
    monkeypatch.chdir(finished.folder)
    change, effect = TABLE[setting]
    if "mask" in change:
        tifffile.imwrite("mask.tif", tifffile.imread(finished.picture)[:, :, 0])
    happened = finished.run(**{"priority": 0.0} | change)
    total = happened.report.tiles["total"]
    assert happened.report.tiles["reused"] == (total if effect == REUSE else 0)
    assert len(happened.computed) == (0 if effect == REUSE else total)
    if effect == RECOMPUTE and setting != "cache":
        assert "for other settings" in happened.notes, "a run that reuses nothing says why"


def touched(place):
    os.utime(place.picture, (1, 1))


def moved(place):
    (place.folder / "sub folder é").mkdir()
    place.picture.rename(place.folder / "sub folder é" / "picture.tif")
    (place.folder / "picture.tif").symlink_to(place.folder / "sub folder é" / "picture.tif")


def renamed_cache(place):
    place.cache.rename(place.folder / "c")
    place.cache.symlink_to(place.folder / "c")


@pytest.mark.parametrize("change", [touched, moved, renamed_cache])
def test_times_and_places_invalidate_nothing(finished, template, change):
    change(finished)
    happened = finished.run()
    assert happened.computed == set()
    assert finished.output.read_bytes() == reference(template)


def test_another_version_of_the_arithmetic_invalidates_everything_and_is_named(finished, monkeypatch):
    for module in ("tilepipe.planning.plan", "tilepipe.planning.make_plan", "tilepipe.planning.memo"):
        monkeypatch.setattr(f"{module}.ALGORITHM_VERSION", 99)
    happened = finished.run()
    assert len(happened.computed) == TILES
    assert "-> 99" in happened.notes


@pytest.mark.parametrize("edited", [False, True])
def test_fresh_computes_everything(finished, template, edited):
    if edited:
        finished.edit(lambda pixels: pixels[:9, :9].fill(0))
    happened = finished.run(fresh=True)
    assert len(happened.computed) == TILES
    assert edited or finished.output.read_bytes() == reference(template)


def test_bytes_that_changed_behind_an_untouched_stamp_are_noticed(finished, monkeypatch):
    """As on a file system that keeps no times: only reading tells; quick verification trusts the stamp."""
    same = digests.stamp_of(finished.picture)
    monkeypatch.setattr("tilepipe.cache.digests.stamp_of", lambda path: same)
    monkeypatch.setattr("tilepipe.planning.analysis.stamp_of", lambda path: same)
    monkeypatch.setattr("tilepipe.execution.ingest.stamp_of", lambda path: same)
    finished.edit(lambda pixels: pixels[:40, :40].fill(0))
    with pytest.raises(InputError, match="changed although its size"):
        finished.run()
    assert finished.run().computed, "the next run takes it as it is"


def test_only_tiles_that_an_edit_touches_are_computed_again(finished, template):
    finished.edit(lambda pixels: np.floor_divide(pixels[250:260, 600:620], 2, out=pixels[250:260, 600:620]))
    happened = finished.run()
    grid = happened.report.plan.grid
    halo = grid.halo
    touching = {
        f"{row}-{column}"
        for row in range(grid.rows)
        for column in range(grid.columns)
        if grid.tile(row, column).frame.y1 > 250 and grid.tile(row, column).frame.x1 > 600
    }
    assert halo < 100
    assert happened.computed == touching
    assert len(touching) < TILES / 2
    assert happened.report.tiles["reused"] == TILES - len(touching)
    assert "blur, parameters and halo are kept" in happened.notes
    shutil.rmtree(finished.cache)
    taken_over = finished.output.read_bytes()
    with_the_numbers_of(finished, happened)
    assert len(finished.run().computed) == TILES
    assert finished.output.read_bytes() == taken_over, "as if every tile had been computed with the kept numbers"


def with_the_numbers_of(place, happened):
    """Let the next run of the picture find the numbers of the run that happened."""
    analysis = happened.report.plan.analysis
    remember(place.cache, digest_of(place.cache, place.picture).sha256, analysis.asked, analysis.memo)


def test_an_edited_run_that_was_interrupted_goes_on_taking_over(finished):
    finished.edit(lambda pixels: pixels[:10, :10].fill(0))

    with pytest.raises(InterruptedRunError):
        finished.run(on_event=at("restore", finished.stop))
    happened = finished.run()
    assert happened.computed <= {"0-0"}


@pytest.mark.parametrize("what", ["another picture", "noisier"])
def test_another_picture_in_the_same_file_is_no_edit(finished, what):
    def change(pixels):
        if what == "another picture":
            pixels[...] = pixels[::-1, ::-1].copy()
        else:  # two fifths of it: most blocks are as they were, and the noise is measured in the middle
            noise = np.random.default_rng(0).normal(0, 3000, pixels[:, 200:440].shape)
            pixels[:, 200:440] = np.clip(pixels[:, 200:440] + noise, 0, 65535)

    finished.edit(change)
    happened = finished.run()
    assert len(happened.computed) == TILES
    assert "determined again" in happened.notes
    assert "pixels changed" in happened.notes
