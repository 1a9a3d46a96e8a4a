"""What goes wrong is said in one line that names it, with the exit code that scripts rely on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tilepipe.cli.main import main

Check = Callable[..., str]


def one_line(folder: Path, before: list[Path], code: int, expected: int, stdout: str, stderr: str) -> str:
    """Check what every refusal owes its caller; give the line it printed."""
    assert "Traceback" not in stderr
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("tilepipe: ")
    assert code == expected, stderr
    assert stdout == ""
    assert sorted(folder.rglob("*")) == before, "a refusal leaves nothing behind"
    return lines[0]


@pytest.fixture
def refused(tilepipe, tmp_path) -> Check:
    """Call tilepipe in an empty folder; it must refuse in one line, leaving the folder as it was.  Give the line."""

    def call(expected: int, *arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        done = tilepipe(*arguments, cwd=tmp_path)
        return one_line(tmp_path, before, done.returncode, expected, done.stdout, done.stderr)

    return call


@pytest.fixture
def refused_here(tmp_path, monkeypatch, capfd) -> Check:
    """The same in this process, for variants: most of a call's second is the imports."""
    monkeypatch.chdir(tmp_path)

    def call(expected: int, *arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return one_line(tmp_path, before, int(ended.value.code or 0), expected, *capfd.readouterr())

    return call


def kernel_file(path: Path, kernel: np.ndarray) -> Path:
    tifffile.imwrite(path, kernel.astype(np.float32), photometric="minisblack")
    return path


# --- input: 3


def test_a_missing_picture(refused, refused_here, psf):
    for call, verb in (
        (refused, ["run", "-o", "out.tif", "--psf", psf]),
        (refused_here, ["plan", "--psf", psf]),
        (refused_here, ["inspect"]),
    ):
        assert "no.tif does not exist" in call(3, *verb, "no.tif")


@pytest.mark.parametrize("content", [b"", b"hello\n" * 50], ids=["empty", "text"])
def test_not_a_picture(refused_here, psf, tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    assert "a.tif is not an image" in refused_here(3, "run", "a.tif", "-o", "out.tif", "--psf", psf)


def test_a_folder_for_a_picture(refused_here, psf, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "folder cannot be read" in refused_here(3, "run", "folder", "-o", "out.tif", "--psf", psf)


@pytest.mark.parametrize("share", [0.1, 0.99])
def test_a_truncated_tiff(refused_here, photo, psf, tmp_path, share):
    content = photo.read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: int(share * len(content))])
    line = refused_here(3, "run", "cut.tif", "-o", "out.tif", "--psf", psf)
    assert "cut.tif is truncated" in line
    assert str(int(share * len(content))) in line, "the file's size"


def test_an_unsupported_picture(refused_here, psf, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64, 4), np.float32), photometric="separated")
    line = refused_here(3, "run", "a.tif", "-o", "out.tif", "--psf", psf)
    assert "SEPARATED of 32-bit float32; convert it first" in line


def test_a_missing_psf_file(refused_here, photo):
    assert "no.tif does not exist" in refused_here(3, "run", photo, "-o", "out.tif", "--psf", "no.tif")


def test_a_psf_file_that_is_no_tiff(refused_here, photo, tmp_path):
    (tmp_path / "psf.tif").write_text("not a PSF")
    assert "psf.tif is not a readable PSF" in refused_here(3, "run", photo, "-o", "out.tif", "--psf", "psf.tif")
    assert "psf.tif is not a readable PSF" in refused_here(3, "psf", "show", "psf.tif")


def test_a_mask_of_another_size(refused_here, photo, psf, tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((10, 20), np.uint8))
    line = refused_here(2, "run", photo, "-o", "o.tif", "--psf", psf, "--mask", tmp_path / "mask.tif")
    assert "is 20 x 10, the image 200 x 160" in line


def test_a_mask_that_is_not_there(refused_here, photo, psf):
    assert "nowhere.tif does not exist" in refused_here(3, "plan", photo, "--psf", psf, "--mask", "nowhere.tif")


def test_no_mask_to_save(refused_here, photo, psf):
    line = refused_here(2, "run", photo, "-o", "o.tif", "--psf", psf, "--save-mask", "m.tif")
    assert "--refocus or --mask" in line


def test_a_mask_file_that_is_there_already_is_left_alone(refused_here, photo, psf, tmp_path):
    (tmp_path / "m.tif").write_bytes(b"mine")
    flags = ["--psf", psf, "--refocus", "--save-mask", tmp_path / "m.tif", "-q"]
    assert "m.tif exists" in refused_here(4, "run", photo, "-o", "o.tif", *flags)


def test_a_missing_config(refused_here, photo, psf):
    assert "no.toml does not exist" in refused_here(
        3, "run", photo, "-o", "out.tif", "--psf", psf, "--config", "no.toml"
    )


# --- usage and settings: 2


WINDOWS = {
    "too small": ("100,80,15", 2, "at least 21 px"),
    "smaller than three kernels": ("100,80,60", 2, "three kernels"),
    "outside": ("200,80", 2, "outside the image of 200 x 160"),
    "larger than the picture": ("100,80,180", 2, "make it smaller"),
    "no window": ("here", 2, "X,Y"),
}


@pytest.mark.parametrize(("window", "code", "words"), WINDOWS.values(), ids=WINDOWS)
def test_window_that_cannot_be_looked_at(refused_here, photo, window, code, words):
    blur = ["--blur", "21"] if "three" in words else []
    assert words in refused_here(code, "run", photo, "-o", "out.tif", "--window", window, *blur)


@pytest.mark.parametrize("blur", ["8", "1", "103"])
def test_blur_that_cannot_be_looked_for(refused_here, photo, blur):
    assert "odd, in 3..101" in refused_here(2, "run", photo, "-o", "out.tif", "--blur", blur)


NOTHING_TO_SEE = {
    "constant": (np.full((300, 300), 20000, np.uint16), "is constant"),
    "all clipped": (np.full((300, 300), 65535, np.uint16), "100 % clipped"),
    "all NaN": (np.full((300, 300), np.nan, np.float32), "not finite"),
}


@pytest.mark.parametrize(("pixels", "words"), NOTHING_TO_SEE.values(), ids=NOTHING_TO_SEE)
def test_picture_that_shows_nothing(refused_here, tmp_path, pixels, words):
    tifffile.imwrite(tmp_path / "photo.tif", pixels, photometric="minisblack")
    line = refused_here(8, "run", "photo.tif", "-o", "out.tif")
    assert words in line
    assert "--psf" in line
    assert "--window" in line


BAD_KERNELS = {
    "even": (np.full((4, 4), 1 / 16), "odd"),
    "negative": (np.array([[0, -0.1, 0], [0, 1.1, 0], [0, 0, 0]]), "negative"),
    "huge": (np.full((257, 257), 1 / 257**2), "limit is 255"),
    "not normalised": (np.ones((3, 3)), "sums to 9"),
}


@pytest.mark.parametrize(("kernel", "word"), BAD_KERNELS.values(), ids=BAD_KERNELS)
def test_a_psf_that_breaks_a_rule(refused_here, photo, tmp_path, kernel, word):
    kernel_file(tmp_path / "psf.tif", kernel)
    line = refused_here(2, "run", photo, "-o", "out.tif", "--psf", "psf.tif")
    assert "psf.tif" in line
    assert word in line


def test_a_picture_smaller_than_the_psf(refused_here, photo, tmp_path):
    kernel_file(tmp_path / "psf.tif", np.full((201, 201), 1 / 201**2))
    line = refused_here(2, "run", photo, "-o", "out.tif", "--psf", "psf.tif")
    assert "201 x 201" in line
    assert "200 x 160" in line


def test_an_output_of_a_format_that_cannot_be_written(refused_here, photo, psf):
    assert "out.bmp must end in one of .tif" in refused_here(2, "run", photo, "-o", "out.bmp", "--psf", psf)


def test_an_unknown_flag(refused, photo, psf):
    line = refused(2, "run", photo, "-o", "out.tif", "--psf", psf, "--tyle", "512")
    assert "--tyle" in line
    assert "--help" in line


def test_an_unknown_verb(refused_here):
    assert "'rum'" in refused_here(2, "rum")


def test_an_unknown_key_names_the_nearest(refused_here, photo, psf, tmp_path):
    (tmp_path / "a.toml").write_text("tiel = 512\n")
    line = refused_here(2, "run", photo, "-o", "out.tif", "--psf", psf, "--config", "a.toml")
    assert "a.toml: unknown setting 'tiel'; did you mean 'tile'" in line
    assert "did you mean 'halo'" in refused_here(2, "config", "show", "--set", "hallo=3")
    assert "did you mean 'tile'" in refused_here(2, "config", "check", "a.toml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tile", "32"], ["tile is 32 px", "64"]),
        (["--tile", "big"], ["--tile", "'big'"]),
        (["--halo", "-1"], ["halo is -1", "0..1024"]),
        (["--jobs", "0"], ["jobs is 0"]),
        (["--priority", "sharp"], ["'sharp'", "deblur"]),
        (["--scheduler", "foo"], ["'foo'", "tcp://HOST:PORT"]),
        (["--dtype", "int8"], ["'int8'", "uint8"]),
    ],
    ids=lambda part: " ".join(part),
)
def test_a_bad_value(refused_here, photo, psf, arguments, words):
    line = refused_here(2, "run", photo, "-o", "out.tif", "--psf", psf, *arguments)
    for word in words:
        assert word in line


def test_a_bad_value_in_the_environment(refused_here, photo, psf, monkeypatch):
    monkeypatch.setenv("TILEPIPE_TILE", "1")
    line = refused_here(2, "run", photo, "-o", "out.tif", "--psf", psf)
    assert "environment: tile is 1 px" in line


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["gaussian"], "--sigma"),
        (["motion", "--length", 9], "--angle"),
        (["disk", "--radius", 3, "--sigma", 1], "takes no --sigma"),
        (["gaussian", "--sigma", -1], "sigma is -1"),
        (["gaussian", "--sigma", 1, "--size", 10], "odd"),
    ],
)
def test_a_shape_that_cannot_be_made(refused_here, arguments, word):
    assert word in refused_here(2, "psf", "make", *arguments, "-o", "psf.tif")


@pytest.mark.thorough
def test_bad_values_and_kernels_seen_from_outside(refused, photo, tmp_path):
    """One of each kind above, as a process of its own."""
    kernel_file(tmp_path / "psf.tif", BAD_KERNELS["negative"][0])
    arguments = ["run", photo, "-o", "out.tif", "--psf", "psf.tif"]
    assert "negative" in refused(2, *arguments)
    assert "64" in refused(2, *arguments, "--tile", "32")
    assert "'prioriti'" in refused(2, *arguments, "--set", "prioriti=1")


# --- output: 4


def test_an_existing_output_is_left_alone(refused_here, photo, psf, tmp_path):
    (tmp_path / "out.tif").write_bytes(b"precious")
    assert "--overwrite" in refused_here(4, "run", photo, "-o", "out.tif", "--psf", psf)
    assert (tmp_path / "out.tif").read_bytes() == b"precious"


def test_an_existing_psf_is_left_alone(refused_here, tmp_path):
    (tmp_path / "psf.tif").write_bytes(b"precious")
    assert "--overwrite" in refused_here(4, "psf", "make", "gaussian", "--sigma", 1, "-o", "psf.tif")
    assert (tmp_path / "psf.tif").read_bytes() == b"precious"


def test_an_existing_picture_of_a_psf_is_left_alone(refused_here, psf, tmp_path):
    (tmp_path / "psf.png").write_bytes(b"precious")
    assert "--overwrite" in refused_here(4, "psf", "show", psf, "--png", "psf.png")
    assert (tmp_path / "psf.png").read_bytes() == b"precious"
    assert "cannot write image no/psf.png" in refused_here(4, "psf", "show", psf, "--png", "no/psf.png")
    shutil.copy(psf, tmp_path / "psf.tif")
    assert ".png" in refused_here(2, "psf", "show", "psf.tif", "--png", "psf.tif", "--overwrite")
    assert (tmp_path / "psf.tif").read_bytes() == psf.read_bytes()


def test_the_input_is_not_taken_for_the_output(refused_here, photo, psf, tmp_path):
    shutil.copy(photo, tmp_path / "a.tif")
    refused_here(4, "run", "a.tif", "-o", "a.tif", "--psf", psf)
    assert (tmp_path / "a.tif").read_bytes() == photo.read_bytes()


def test_an_output_folder_that_is_not_there(refused_here, photo, psf):
    line = refused_here(4, "run", photo, "-o", "no/out.tif", "--psf", psf)
    assert "no does not exist" in line


def test_a_file_for_the_folder_of_several_images(refused_here, photo, large_photo, psf, tmp_path):
    (tmp_path / "out.tif").touch()
    line = refused_here(4, "run", photo, large_photo, "-o", "out.tif", "--psf", psf)
    assert "is a file; several images need a folder" in line


def test_images_of_one_name(refused_here, photo, psf, tmp_path):
    shutil.copy(photo, tmp_path / photo.name)
    line = refused_here(2, "run", photo, photo.name, "-o", "out", "--psf", psf)
    assert "would both be written to" in line
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_is_not_there(refused_here, psf):
    assert "--manifest list.txt cannot be read" in refused_here(2, "run", "--manifest", "list.txt", "-o", "out")


@pytest.mark.parametrize("options", [[], ["--shared-psf"]])
def test_a_manifest_without_images(refused_here, tmp_path, options):
    (tmp_path / "list.txt").write_text("# none\n")
    line = refused_here(2, "run", "--manifest", "list.txt", "-o", "out", *options)
    assert "there is no image to restore" in line


def test_one_mask_file_for_several_images(refused_here, photo, psf, tmp_path):
    line = refused_here(2, "run", photo, "-o", f"{tmp_path}/", "--psf", psf, "--refocus", "--save-mask", "mask.tif")
    assert "cannot be used with several images" in line


# --- does not fit: 5


def test_a_budget_below_what_python_takes(refused, photo, psf):
    line = refused(5, "run", photo, "-o", "out.tif", "--psf", psf, "--memory", "50MB", "-q")
    assert "50.0 MB" in line
    assert "--memory" in line


@pytest.mark.thorough
def test_a_budget_that_smaller_tiles_would_meet(tilepipe, refused, large_photo, psf):
    """The budget lies between what restoring in one tile needs and what all other stages do."""
    arguments = [large_photo, "-o", "out.tif", "--psf", psf, "--tile", 3000, "-j", 1, "--quality", "fast"]
    stages = json.loads(tilepipe("plan", *arguments, "--json", "--memory", "9GB").stdout)["memory"]["stages"]
    restore = stages.pop("restore")
    assert max(stages.values()) < restore
    budget = (restore + max(stages.values())) // 2
    line = refused(5, "run", *arguments, "-q", "--memory", budget)
    assert "--memory" in line
    assert "--tile" in line


# --- caches: 7


def test_a_cache_that_is_none(refused_here, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no run" in refused_here(7, "status", "empty")
    assert "holds no run 'x'" in refused_here(7, "cache", "rm", "--cache", "empty", "x")
    assert "--all" in refused_here(2, "cache", "rm", "--cache", "empty")


# --- help, and how fast it is there


def test_help_of_all_verbs(tilepipe):
    done = tilepipe("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Exit codes" in done.stdout
    for verb in ("run", "plan", "psf", "inspect", "status", "cache", "config", "demo"):
        assert f"\n  {verb} " in done.stdout


@pytest.mark.parametrize(
    "verb",
    [
        "run",
        "plan",
        "psf",
        "psf make",
        "psf show",
        "inspect",
        "status",
        "cache",
        "cache ls",
        "cache verify",
        "cache rm",
        "config",
        "config show",
        "config check",
        "demo",
    ],
)
def test_help_of_each_verb(verb):
    """In this process: importing a verb is part of the promise, starting an interpreter is not."""
    from click.testing import CliRunner

    from tilepipe.cli.main import tilepipe as group

    done = CliRunner().invoke(group, [*verb.split(), "--help"], prog_name="tilepipe")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Usage: tilepipe {verb} ")
    assert all(len(line) <= 80 for line in done.output.splitlines())


def test_version(tilepipe):
    from tilepipe import __version__

    assert tilepipe("--version").stdout == f"tilepipe {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["config", "show"]], ids=" ".join)
def test_what_computes_nothing_imports_nothing_heavy(arguments):
    script = (
        "import sys, tilepipe.cli.main as main\n"
        "try: main.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'numba', 'zarr', 'dask', 'distributed', 'tifffile', 'PIL'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=900)
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stderr
