"""Small pictures and runs that several test modules share."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import settings

from tilepipe.psf.shapes import gaussian, motion
from tilepipe.testing import BlurredScene, Scene, write_scene

settings.register_profile("compiled", deadline=None)  # the first example of a kernel compiles it
settings.load_profile("compiled")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """No test touches the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A 900 x 700 blurred scene of 16 bits, with its PSF: 4 tiles of up to 450 px with `--tile 450`."""
    folder = tmp_path_factory.mktemp("small")
    psf = gaussian(1.2)
    psf.save(folder / "psf.tif")
    write_scene(folder / "blurred.tif", BlurredScene(Scene(900, 700), psf, 0.005))
    return folder


@pytest.fixture(scope="session")
def moving(tmp_path_factory):
    """The same size, blurred by motion."""
    folder = tmp_path_factory.mktemp("moving")
    psf = motion(7, 20)
    psf.save(folder / "psf.tif")
    write_scene(folder / "blurred.tif", BlurredScene(Scene(900, 700, seed=4), psf, 0.01))
    return folder


@pytest.fixture
def tilepipe_command():
    """Run the command line in a process of its own: ``tilepipe_command("run", ...)``."""

    def run(*arguments, check=True, **environment):
        return subprocess.run(
            [sys.executable, "-m", "tilepipe", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=check,
            env=os.environ | environment,
            timeout=900,
        )

    return run


@pytest.fixture(scope="session")
def data():
    """The folder of real pictures; without it the test is skipped."""
    folder = os.environ.get("TILEPIPE_DATA")
    if not folder:
        pytest.skip("$TILEPIPE_DATA is not set: no real pictures to test on")
    return Path(folder)


def write_rgb(path, pixels, **options):
    tifffile.imwrite(path, pixels, photometric="rgb" if pixels.shape[-1] == 3 else "minisblack", **options)
    return path


def random_codes(shape, dtype, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
