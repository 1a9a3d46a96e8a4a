"""Bounded memory: measured peak <= projected <= allowed, for any size and kind of picture."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tilepipe.psf.shapes import gaussian, motion
from tilepipe.testing import BlurredScene, Scene, write_scene

LAUNCHER = Path(__file__).parents[1] / "measured.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured from outside through /proc")


def run_and_measure(tmp_path, *arguments):
    """Run in a process of its own, started by a small one; return its JSON and what was measured from outside."""
    command = [sys.executable, "-m", "tilepipe", "run", *map(str, arguments)]
    command += ["-o", str(tmp_path / "out.tif"), "--cache", str(tmp_path / "c"), "--json", "-q", "--quality", "fast"]
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER), *command]
    done = subprocess.run(launcher, capture_output=True, text=True, check=True)
    reported, measured = (json.loads(line) for line in done.stdout.splitlines() if line)
    assert measured["code"] == 0, done.stderr
    return reported["memory"], measured


def check(memory, measured):
    assert measured["rss"] <= memory["projected"] <= memory["allowed"]
    assert measured["tree_rss"] <= memory["projected"]
    assert 0 < measured["tree_pss"] <= measured["tree_rss"]
    # what the run reports is what is seen from outside, but for what ends the process
    assert abs(measured["rss"] - memory["peak"]) < 0.01 * memory["peak"]
    assert memory["peak"] >= 0.8 * memory["projected"]


@pytest.mark.parametrize(
    "size",
    [pytest.param((200, 160), id="tiny"), pytest.param((1500, 1100), id="several tiles", marks=pytest.mark.thorough)],
)
def test_tiff_stays_within_its_budget(tmp_path, size):
    psf = motion(7, 20)
    psf.save(tmp_path / "psf.tif")
    write_scene(tmp_path / "in.tif", BlurredScene(Scene(*size), psf, 0.01))
    check(*run_and_measure(tmp_path, tmp_path / "in.tif", "--psf", tmp_path / "psf.tif", "--memory", "512MB"))


@pytest.mark.thorough
def test_jpeg_is_decoded_whole_and_counted(tmp_path):
    from PIL import Image

    gaussian(1).save(tmp_path / "psf.tif")
    noise = np.random.default_rng(0).normal(0, 3, (1700, 2400, 3))
    ramp = np.linspace(20, 220, 2400)[None, :, None]
    Image.fromarray((ramp + noise).astype(np.uint8)).save(tmp_path / "in.jpg", quality=92)
    check(*run_and_measure(tmp_path, tmp_path / "in.jpg", "--psf", tmp_path / "psf.tif", "--memory", "600MB"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(3000, 2000), (6000, 4000)])
def test_size_does_not_matter(tmp_path, size):
    psf = motion(13, 30)
    psf.save(tmp_path / "psf.tif")
    write_scene(tmp_path / "in.tif", BlurredScene(Scene(*size), psf, 0.005))
    check(*run_and_measure(tmp_path, tmp_path / "in.tif", "--psf", tmp_path / "psf.tif", "--memory", "512MB"))
