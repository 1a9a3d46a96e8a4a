"""No file that a run reads is ever one that it writes, whatever the paths look like; values stay in range."""

import os
import threading

import numpy as np
import pytest
import tifffile

from tilepipe.cli.main import main
from tilepipe.errors import InputNotFoundError, InterruptedRunError, OutputError, OutputExistsError
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.image.readers import open_image
from tilepipe.image.writers.beside import partial_of, write_beside
from tilepipe.planning.plan import check_output
from tilepipe.psf.shapes import gaussian
from tilepipe.system import file_lock
from tilepipe.testing import BlurredScene, Scene, write_scene


@pytest.fixture
def place(tmp_path):
    gaussian(1).save(tmp_path / "psf.tif")
    write_scene(tmp_path / "in.tif", BlurredScene(Scene(120, 100), gaussian(1), 0.01))
    tifffile.imwrite(tmp_path / "mask.tif", np.full((100, 120), 255, np.uint8))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    os.link(tmp_path / "in.tif", tmp_path / "hard.tif")
    return tmp_path


def planned(place, output, **settings):
    settings = {"psf": place / "psf.tif", "cache": str(place / "c"), "quality": "fast"} | settings
    return make_plan(place / "in.tif", place / output, **settings)


@pytest.mark.parametrize("output", ["in.tif", "folder/../in.tif", "link/in.tif", "hard.tif", "psf.tif", "mask.tif"])
def test_an_output_that_is_an_input_is_refused(place, output):
    before = {path: path.read_bytes() for path in place.glob("*.tif")}
    with pytest.raises(OutputError, match="would replace the input"):
        planned(place, output, mask=str(place / "mask.tif"))
    assert {path: path.read_bytes() for path in place.glob("*.tif")} == before


def test_a_temporary_file_that_is_an_input_is_refused(place):
    (place / "in.tif").rename(place / "out.tif.partial")
    with pytest.raises(OutputError, match="would replace the input"):
        make_plan(place / "out.tif.partial", place / "out.tif", psf=place / "psf.tif", cache=str(place / "c"))


@pytest.mark.parametrize("mask", ["out.tif", "link/out.tif", "in.tif", "mask.tif"])
def test_a_saved_mask_is_a_file_of_its_own(place, mask):
    with pytest.raises(OutputError, match=r"would (both|replace)"):
        planned(place, "out.tif", mask=str(place / "mask.tif"), save_mask=str(place / mask))


def test_a_psf_does_not_replace_its_image(place):
    before = (place / "in.tif").read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["psf", "estimate", str(place / "in.tif"), "-o", str(place / "hard.tif"), "--overwrite"])
    assert ended.value.code == 4
    assert (place / "in.tif").read_bytes() == before


def test_a_temporary_file_renamed_before_it_is_locked_is_not_written(tmp_path, monkeypatch):
    """Another run finishes between the opening and the locking: its output is what was opened."""
    path, seen = tmp_path / "out.tif", []

    def try_lock(file):
        if not seen:
            seen.append(file)
            partial_of(path).write_bytes(b"the other run's")
            partial_of(path).rename(path)
        return file_lock.try_lock(file)

    monkeypatch.setattr("tilepipe.image.writers.beside.try_lock", try_lock)

    def write(partial):
        assert partial.stat().st_ino != path.stat().st_ino
        partial.write_bytes(b"ours")

    write_beside(path, write, overwrite=True)
    assert path.read_bytes() == b"ours"
    assert len(seen) == 1


def test_float16_saturates(place):
    """Counts beyond 65504: infinity would be read as no data."""
    pixels = tifffile.imread(place / "in.tif").astype(np.float32)[..., 1]
    pixels *= 150_000 / pixels.max()
    pixels[10, 10] = np.inf
    pixels[20, 20] = np.nan
    tifffile.imwrite(place / "in.tif", pixels)
    planned(place, "out.tif", dtype="float16").run()
    out = tifffile.imread(place / "out.tif")
    assert out.dtype == np.float16
    assert out.max(where=np.isfinite(out), initial=0) == np.finfo(np.float16).max
    assert np.argwhere(np.isinf(out)).tolist() == [[10, 10]]
    assert np.argwhere(np.isnan(out)).tolist() == [[20, 20]]


@pytest.mark.parametrize("scale", [1e-3, 1500.0, 6e4])
def test_counts_are_planned_in_their_own_scale(place, scale):
    pixels = tifffile.imread(place / "in.tif").astype(np.float32)[..., 1] / 65535
    plans = []
    for factor in (1.0, scale):
        tifffile.imwrite(place / "in.tif", pixels * np.float32(factor))
        plans.append(planned(place, f"out{factor}.tif", tile=64))
    one, other = plans
    assert other.recipe.noise == pytest.approx(one.recipe.noise, rel=1e-3)
    assert other.seam == pytest.approx(one.seam, rel=0.02)
    assert (other.recipe.halo, other.recipe.parameters.steps) == (one.recipe.halo, one.recipe.parameters.steps)


def test_a_stop_is_noticed_while_the_input_is_hashed(place, monkeypatch):
    monkeypatch.setattr("tilepipe.cache.digests.READ_BLOCK", 1000)
    plan, stop = planned(place, "out.tif"), threading.Event()
    stop.set()
    with pytest.raises(InterruptedRunError):
        plan.run(stop=stop)
    assert not (place / "out.tif").exists()
    assert not list((place / "c").rglob("tiles.zarr"))
    plan.run(stop=threading.Event())


def test_a_stop_is_noticed_while_pieces_are_verified(place, monkeypatch):
    from tilepipe.cache.store import CheckedArray

    plan = planned(place, "out.tif", tile=64)
    plan.run()
    stop, real, seen = threading.Event(), CheckedArray.state, []

    def state(self, *arguments, **options):
        stop.set()
        seen.append(arguments)
        return real(self, *arguments, **options)

    monkeypatch.setattr(CheckedArray, "state", state)
    with pytest.raises(InterruptedRunError):
        plan.run(overwrite=True, stop=stop)
    assert len(seen) == 1


def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    real, link = tmp_path / "folder" / "real.tif", tmp_path / "link.tif"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with pytest.raises(OutputExistsError):
        write_beside(link, lambda partial: partial.write_bytes(b"new"))
    assert real.read_bytes() == b"old"
    write_beside(link, lambda partial: partial.write_bytes(b"new"), overwrite=True)
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "link.tif", "real.tif"]


def test_a_dangling_link_is_followed(tmp_path):
    (tmp_path / "link.tif").symlink_to("target.tif")
    write_beside(tmp_path / "link.tif", lambda partial: partial.write_bytes(b"new"))
    assert (tmp_path / "link.tif").is_symlink()
    assert (tmp_path / "target.tif").read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
def test_pipes_are_neither_read_nor_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(InputNotFoundError, match="is a pipe or a device"):
        open_image(tmp_path / "pipe.tif")
    with pytest.raises(OutputError, match="not a regular file"):
        check_output(tmp_path / "pipe.tif", overwrite=True)
    assert (tmp_path / "pipe.tif").is_fifo()
