"""Machines without a home, a console, or file names in Unicode: it works, or one line says why not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tilepipe.psf.shapes import gaussian
from tilepipe.testing import BlurredScene, Scene, write_scene

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses file descriptors and users as Linux has them")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A picture and a PSF in a folder that anybody may use."""
    folder = tmp_path_factory.mktemp("place")
    gaussian(1.0).save(folder / "psf.tif")
    write_scene(folder / "in.tif", BlurredScene(Scene(300, 200), gaussian(1.0), 0.005))
    return folder


def run(folder, *arguments, environment=None, picture="in.tif", **options):
    command = [sys.executable, "-m", "tilepipe", "run", picture, "-o", "out.tif", "--psf", "psf.tif", "--overwrite"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])} | (environment or {})
    return subprocess.run(
        [*command, "--quality", "fast", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=900,
        **options,
    )


HOMELESS = """
import os, pwd, runpy, sys
os.environ.pop("HOME", None)
def refuse(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = refuse
sys.argv = ["tilepipe", *sys.argv[1:]]
runpy.run_module("tilepipe", run_name="__main__")
"""
"""Runs the command line as a user without a home and without an entry in the user database."""


@pytest.mark.thorough
def test_no_home_and_no_entry_in_the_user_database(folder, tmp_path):
    for name in ("in.tif", "psf.tif"):
        os.link(folder / name, tmp_path / name)
    command = [
        sys.executable,
        "-c",
        HOMELESS,
        "run",
        "in.tif",
        "-o",
        "out.tif",
        "--psf",
        "psf.tif",
        "--quality",
        "fast",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}

    def start(*arguments):
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )

    refused = start()
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "no home folder" in refused.stderr
    assert "--cache" in refused.stderr
    done = start("--cache", "c")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "in.tif", "out.tif", "psf.tif"]


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.thorough
@pytest.mark.parametrize("language", [{"LANG": "C.UTF-8"}, ASCII])
def test_names_that_are_not_unicode(folder, language):
    name = b"p\xff\xe4.tif"
    if name not in os.listdir(os.fsencode(folder)):
        os.link(os.fsencode(folder / "in.tif"), os.fsencode(folder) + b"/" + name)
    done = run(folder, "--cache", os.fsdecode(b"c\xff"), environment=language, picture=os.fsdecode(name))
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"out.tif\n"
    for arguments in (["cache", "ls"], ["cache", "ls", "--json"], ["inspect", os.fsdecode(name)]):
        command = [sys.executable, "-m", "tilepipe", *arguments]
        command += ["--cache", os.fsdecode(b"c\xff")] if arguments[0] == "cache" else []
        shown = subprocess.run(command, cwd=folder, env=dict(os.environ) | language, capture_output=True, timeout=900)
        assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    "closed", [*(pytest.param(one, marks=pytest.mark.thorough) for one in ("1", "2", "12")), "012"]
)
def test_closed_streams(folder, closed):
    """A file opened as number 2 would receive what libraries print."""

    def close():
        for number in map(int, closed):
            os.close(number)

    done = run(folder, "--cache", "c", preexec_fn=close)
    assert done.returncode == 0, done.stderr


def test_errors_with_a_closed_stderr(folder):
    done = run(folder, "--cache", "c", picture="missing.tif", preexec_fn=lambda: os.close(2))
    assert done.returncode == 3


def test_a_package_folder_that_cannot_be_written_and_no_home(folder, tmp_path):
    """Kernels are compiled without a cache; no folder with a predictable name is made."""
    code = (
        "import numba.core.caching as c\n"
        "def refuse(*a): raise OSError('read-only')\n"
        "for name in dir(c):\n"
        "    if name.endswith('CacheLocator'):\n"
        "        getattr(c, name).ensure_cache_path = refuse\n"
        "from tilepipe.deconv import dct\n"
        "from tilepipe.image import lut\n"
        "import numpy as np\n"
        "out = np.zeros(3, np.float32)\n"
        "lut.look_up(np.arange(256, dtype=np.float32), np.array([1, 2, 3], np.uint8), out)\n"
        "print(out)\n"
    )
    before = set(os.listdir("/tmp"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=900, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[1. 2. 3.]\n"
    assert list(tmp_path.iterdir()) == []
    assert not {name for name in set(os.listdir("/tmp")) - before if "numba" in name}
