"""``tilepipe psf`` and ``plan`` with PSFs that differ over the image."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tilepipe.psf.field import Lattice, PSFField, load_psf
from tilepipe.psf.lens import LensBlur
from tilepipe.psf.shapes import gaussian, motion
from tilepipe.testing import BlurredScene, Scene, write_scene

LENS = LensBlur(((0.3, 2.0),)).field(0.35, {"nearest": "a lens", "image": {"width": 500, "height": 400}})


def call(*arguments):
    from tilepipe.cli.main import tilepipe

    done = CliRunner().invoke(tilepipe, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    LENS.save(folder / "lens.tif")
    write_scene(folder / "seen.tif", BlurredScene(Scene(500, 400), LENS, 0.004))
    return folder


def test_psf_show_prints_the_widths(folder):
    first, what, _, *rows = call("psf", "show", folder / "lens.tif").splitlines()
    assert f"lens, {len(LENS.components)} places" in first
    assert what == "a lens"
    widths = np.array([[float(value) for value in row.split()] for row in rows])
    assert widths.shape == (5, 7)
    assert widths[2, 3] == widths.min()
    assert widths[0, 0] == pytest.approx(widths.max(), abs=0.02)


def test_psf_show_as_json_gives_the_places(folder):
    facts = json.loads(call("psf", "show", folder / "lens.tif", "--json"))
    assert facts["field"]["kind"] == "lens"
    assert facts["field"]["radii"] == list(LENS.places.radii)


@pytest.mark.parametrize(
    "field", [LENS, PSFField((gaussian(1), motion(9, 0)), Lattice((0.5,), (0.2, 0.8)))], ids=["lens", "grid"]
)
def test_psf_show_draws_the_kernels(folder, tmp_path, field):
    field.save(tmp_path / "field.tif")
    call("psf", "show", tmp_path / "field.tif", "--png", tmp_path / "field.png")
    with Image.open(tmp_path / "field.png") as picture:
        drawn = np.asarray(picture)
    assert drawn.shape[1] > drawn.shape[0]
    assert (drawn == 255).sum() >= 35  # the peak of each kernel


def test_psf_check_judges_a_field(folder):
    facts = json.loads(call("psf", "check", folder / "lens.tif", folder / "seen.tif", "--json"))
    assert 0 <= facts["likeness"] <= 1
    assert facts["gain"] > 1


def test_psf_estimate_with_field_none_writes_one_kernel(folder, tmp_path):
    call("psf", "estimate", folder / "seen.tif", "-o", tmp_path / "one.tif", "--field", "none")
    assert len(load_psf(tmp_path / "one.tif").components) == 1


def test_plan_reports_the_field(folder, tmp_path):
    plan = json.loads(
        call("plan", folder / "seen.tif", "--psf", folder / "lens.tif", "--json", "--cache", tmp_path / "c")
    )
    assert plan["psf"]["size"] == LENS.size
    assert plan["psf"]["made_by"]["nearest"] == "a lens"
