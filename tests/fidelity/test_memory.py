"""Bounded memory: measured peak <= projected <= allowed, for any size and kind of picture."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tilepipe.psf.shapes import gaussian, motion
from tilepipe.testing import BlurredScene, Scene, write_scene


def run_and_measure(tmp_path, *arguments):
    """Run in a process of its own; return its JSON and the peak that the kernel reports to the parent."""
    command = [sys.executable, "-m", "tilepipe", "run", *map(str, arguments)]
    command += ["-o", str(tmp_path / "out.tif"), "--cache", str(tmp_path / "c"), "--json", "-q", "--quality", "fast"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return json.loads(out)["memory"], usage.ru_maxrss * 1024


def check(memory, kernel_peak):
    assert memory["peak"] <= memory["projected"] <= memory["allowed"]
    # a process begins as a copy of its parent, so the kernel's figure may be the test's own peak
    assert abs(kernel_peak - memory["peak"]) < 0.02 * memory["peak"] or kernel_peak > memory["peak"]
    assert memory["peak"] >= 0.8 * memory["projected"]


@pytest.mark.parametrize("size", [(200, 160), (1500, 1100)], ids=["tiny", "several tiles"])
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
