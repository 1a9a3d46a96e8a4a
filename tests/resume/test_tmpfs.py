"""Really full disks: a small tmpfs for the cache, and one for the output."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tilepipe.psf.shapes import gaussian
from tilepipe.testing import BlurredScene, Scene, write_scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

INSIDE = """
set -u
mount -t tmpfs -o size=$SIZE tmpfs "$DISK" || exit 99
run() { "$PYTHON" -m tilepipe run picture.tif --psf psf.tif --quality fast --json -q "$@"; echo "exit $?"; }
"""
"""In a mount namespace of its own; the disk is gone with it."""


def in_namespace(folder, size, script):
    if not shutil.which("unshare"):
        pytest.skip("no unshare: cannot mount a small disk")
    (folder / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", INSIDE + script],
        cwd=folder,
        env=os.environ | {"SIZE": size, "DISK": str(folder / "disk"), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 99 or "Operation not permitted" in done.stderr:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    return done


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("picture")
    write_scene(folder / "picture.tif", BlurredScene(Scene(4500, 3500), gaussian(1.2), 0.01))
    gaussian(1.2).save(folder / "psf.tif")
    return folder


def test_a_full_cache_is_refused_or_stopped_and_gone_on_with(picture, tmp_path):
    shutil.copytree(picture, tmp_path, dirs_exist_ok=True)
    done = in_namespace(
        tmp_path,
        "300m",
        """
        run -o out.tif --cache disk/c
        run -o out.tif --cache disk/c --force
        df -m disk | tail -1
        mount -o remount,size=2g disk
        run -o out.tif --cache disk/c --force
        run -o calm.tif --cache calm
        cmp out.tif calm.tif && echo same
        """,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("exit")] == ["exit 5", "exit 5", "exit 0", "exit 0"], done.stderr
    refused, stopped = done.stderr.splitlines()
    assert "needs" in refused
    assert "--force" in refused
    assert "is full; what is done is kept" in stopped
    resumed = next(json.loads(line) for line in lines if line.startswith("{"))
    assert resumed["tiles"]["reused"] > 0
    assert lines[-1] == "same"


def test_a_full_output_is_refused_or_stopped_and_gone_on_with(picture, tmp_path):
    shutil.copytree(picture, tmp_path, dirs_exist_ok=True)
    done = in_namespace(
        tmp_path,
        "60m",
        """
        run -o disk/out.tif --cache c
        run -o disk/out.tif --cache c --force
        ls disk
        mount -o remount,size=300m disk
        run -o disk/out.tif --cache c
        ls disk
        """,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("exit")] == ["exit 5", "exit 5", "exit 0"], done.stderr
    assert "the output disk/out.tif needs" in done.stderr.splitlines()[0]
    assert "disk of the output disk/out.tif is full" in done.stderr.splitlines()[1]
    tiles = next(json.loads(line) for line in lines if line.startswith("{"))["tiles"]
    assert tiles["computed"] == 0
    assert lines.count("out.tif") == 1
    assert "out.tif.partial" not in lines
