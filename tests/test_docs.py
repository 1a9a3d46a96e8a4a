"""What README and docs show works: Python blocks run, command lines parse, links and module paths lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import tifffile

from tilepipe.cli.main import tilepipe as command
from tilepipe.image.light import SRGB, Light
from tilepipe.psf.shapes import motion
from tilepipe.testing import Scene, degrade

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(?:\$ )?(tilepipe .*)$", re.MULTILINE)
PATH = re.compile(r"`((?:tilepipe|tests|benchmarks|docs|configs)/[\w/.-]+|[a-z]\w*/[\w/]+\.py)`")
MARKS = ("...", "IMAGE", "OUT", "CACHE", "FILE", "DIR", "ADDRESS", "|", "[")
"""Marks of lines that stand for more than one command."""


def names(pages):
    return [page.name for page in pages]


def code(page, language):
    return [body for kind, body in FENCED.findall(page.read_text()) if kind == language]


def command_lines(page):
    """Return the command lines of a page, as arguments, comments and prompts taken off."""
    lines = INDENTED.findall(page.read_text())
    for language in ("sh", "bash", "console", "shell"):
        for body in code(page, language):
            lines += re.findall(r"^(?:\$ )?(tilepipe .*)$", body, re.MULTILINE)
    lines = [re.split(r"\s+#|\s&&|\s2?>", line)[0].strip() for line in lines]
    return [shlex.split(line)[1:] for line in lines if not any(mark in line for mark in MARKS)]


@pytest.fixture
def photograph(tmp_path, monkeypatch):
    """A folder with ``photo.tif``, 16 bit, behind a short motion, and what earlier steps make; its linear light."""
    psf = motion(7, 30)
    edge = 300 + psf.size - 1
    linear = degrade(Scene(edge, edge, 3).rows(0, edge), psf, 0.003).astype(np.float32)
    light = Light((SRGB,) * 3, "uint16")
    planes = np.moveaxis(linear, -1, 0)
    encoded = np.stack([light.encoded(index, plane, "uint16") for index, plane in enumerate(planes)], -1)
    tifffile.imwrite(tmp_path / "photo.tif", encoded, photometric="rgb")
    (tmp_path / "demo").mkdir()
    for name in ("demo/true-psf.tif", "shake.tif"):  # files that earlier steps of the tutorial make
        psf.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return linear


@pytest.mark.thorough
@pytest.mark.parametrize("page", [page for page in PAGES if code(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page, photograph):
    np.save("image.npy", photograph)
    script = Path("page.py")
    script.write_text("\n".join(["import numpy", "image = numpy.load('image.npy')", *code(page, "python")]))
    # a process of its own, as a reader's: that of the tests may already use the memory that a page allows
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pages_show_commands():
    assert len(command_lines(ROOT / "README.md")) > 10
    assert code(ROOT / "README.md", "python")


def parse(arguments):
    """Parse a command line down to its verb, without running it; click raises what a user would see."""
    group, context = command, click.Context(command, info_name="tilepipe")
    if arguments == ["--version"]:
        return
    while isinstance(group, click.Group):
        name, verb, arguments = group.resolve_command(context, arguments)
        context = click.Context(verb, parent=context, info_name=name)
        group = verb
    verb.make_parser(context).parse_args(list(arguments))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_command_lines_parse(page):
    for arguments in command_lines(page):
        parse(arguments)


def test_a_flag_that_is_not_there_is_noticed():
    with pytest.raises(click.NoSuchOption):
        parse(["run", "photo.tif", "--sharpness", "3"])


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_paths_that_are_named_exist(page):
    named = {path.rstrip("/.") for path in PATH.findall(page.read_text())}
    missing = [path for path in named if not (ROOT / path).exists() and not (ROOT / "tilepipe" / path).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
