"""The command line as a script sees it: a process with arguments, an exit code and two streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import convolve

from tilepipe.psf.shapes import motion

CommandLine = Callable[..., subprocess.CompletedProcess[str]]
"""(*arguments, cwd=folder, **environment) -> what came of it."""


@pytest.fixture(scope="session")
def tilepipe(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Run ``python -m tilepipe``; the user's settings and caches are out of its sight."""
    home = tmp_path_factory.mktemp("home")
    outside = {key: value for key, value in os.environ.items() if not key.startswith("TILEPIPE_")}

    def call(*arguments: object, cwd: Path = home, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tilepipe", *map(str, arguments)],
            cwd=cwd,
            env=outside | {"XDG_CACHE_HOME": str(home / "cache")} | environment,
            capture_output=True,
            text=True,
            timeout=900,
        )

    return call


BLUR = motion(5, 30)


def write_photo(path: Path, height: int, width: int, *, dtype: str = "uint16", channels: int = 3) -> Path:
    """Write a picture of some edges, seen through ``BLUR`` and a little noise."""
    y, x = np.mgrid[0:height, 0:width]
    sharp = 0.3 + 0.1 * np.sin(x / 9) * np.cos(y / 7) + 0.3 * ((x // 40 + y // 30) % 2)
    linear = convolve(sharp, np.asarray(BLUR.kernel), mode="nearest")
    linear = linear + np.random.default_rng(3).normal(0, 0.003, linear.shape)
    top = np.iinfo(dtype).max
    planes = [np.rint(np.clip(linear * shade, 0, 1) ** (1 / 2.2) * top) for shade in (1.0, 0.7, 0.4)[:channels]]
    samples = np.stack(planes, -1).astype(dtype)
    tifffile.imwrite(path, samples.squeeze(), photometric="rgb" if channels == 3 else "minisblack", rowsperstrip=32)
    return path


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TIFF of 200 x 160 px, 16-bit RGB; not to be changed."""
    return write_photo(tmp_path_factory.mktemp("photo") / "photo.tif", 160, 200)


@pytest.fixture(scope="session")
def large_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TIFF of 1200 x 1200 px, 8-bit gray: tiles are what its memory goes into."""
    return write_photo(tmp_path_factory.mktemp("photo") / "large.tif", 1200, 1200, dtype="uint8", channels=1)


@pytest.fixture(scope="session")
def psf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PSF file of what blurred the photos."""
    path = tmp_path_factory.mktemp("psf") / "psf.tif"
    BLUR.save(path)
    return path
