"""The command line as a script sees it: a process with arguments, an exit code and two streams."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import tifffile
import zarr
from scipy.ndimage import convolve

from tilepipe.cli.main import main
from tilepipe.psf.shapes import motion
from tilepipe.system import memory

CommandLine = Callable[..., subprocess.CompletedProcess[str]]
"""(*arguments, cwd=folder, **environment) -> what came of it."""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command line is called in, with the user's cache."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def tilepipe(home: Path) -> CommandLine:
    """Run ``python -m tilepipe``; the user's settings and caches are out of its sight."""
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


@contextlib.contextmanager
def redirected(number: int, file: IO[str], redirect: Callable[[IO[str]], contextlib.AbstractContextManager[object]]):
    """Let a file receive a standard stream, also what libraries in C write to it."""
    kept = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        with redirect(file):
            yield
    finally:
        file.flush()
        os.dup2(kept, number)
        os.close(kept)


@contextlib.contextmanager
def process_left_as_it_was() -> Iterator[pytest.MonkeyPatch]:
    """Keep from the other tests what the command line sets for the process that it has to itself elsewhere."""
    names = ("threading.max_workers", "async.concurrency")
    with pytest.MonkeyPatch.context() as patch, zarr.config.set({name: zarr.config.get(name) for name in names}):
        patch.setattr(memory, "_set_malloc", lambda *thresholds: None)
        patch.setattr(logging.getLogger("tifffile"), "level", logging.getLogger("tifffile").level)
        yield patch


@pytest.fixture(scope="session")
def tilepipe_here(home: Path) -> CommandLine:
    """Call the command line as ``tilepipe`` does, but in this process: most of a call's seconds are the imports."""

    def call(*arguments: object, cwd: Path = home, **environment: str) -> subprocess.CompletedProcess[str]:
        given = [str(argument) for argument in arguments]
        with (
            process_left_as_it_was() as patch,
            tempfile.TemporaryFile("w+", encoding="utf-8") as stdout,
            tempfile.TemporaryFile("w+", encoding="utf-8") as stderr,
        ):
            for name in [name for name in os.environ if name.startswith("TILEPIPE_")]:
                patch.delenv(name)
            for name, value in ({"XDG_CACHE_HOME": str(home / "cache")} | environment).items():
                patch.setenv(name, value)
            patch.chdir(cwd)
            with (
                redirected(1, stdout, contextlib.redirect_stdout),
                redirected(2, stderr, contextlib.redirect_stderr),
                pytest.raises(SystemExit) as ended,
            ):
                main(given)
            for file in (stdout, stderr):
                file.seek(0)
            return subprocess.CompletedProcess(given, int(ended.value.code or 0), stdout.read(), stderr.read())

    return call


@pytest.fixture(params=["here", pytest.param("process", marks=pytest.mark.thorough)])
def command(request: pytest.FixtureRequest) -> CommandLine:
    """Call the command line: in this process, and by the thorough tests in one of its own, too."""
    called: CommandLine = request.getfixturevalue("tilepipe_here" if request.param == "here" else "tilepipe")
    return called


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
