"""``tilepipe psf`` and ``plan`` with PSFs that differ over the image."""

import json

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from tilepipe.events import Note
from tilepipe.image.light import SRGB
from tilepipe.image.metadata.camera import camera_facts
from tilepipe.image.readers import open_image
from tilepipe.planning.field_match import field_mismatches
from tilepipe.planning.make_plan import make_plan
from tilepipe.psf.field import Lattice, PSFField, load_psf
from tilepipe.psf.lens import LensBlur
from tilepipe.psf.shapes import gaussian, motion
from tilepipe.testing import BlurredScene, Scene, blur, write_scene
from tilepipe.testing.scenes import Photograph

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


def test_psf_show_names_its_picture_and_inspect_gives_the_places(folder, tmp_path):
    shown = call("psf", "show", folder / "lens.tif", "--png", tmp_path / "a.png")
    assert shown.splitlines()[-1] == str(tmp_path / "a.png")
    facts = json.loads(call("psf", "show", folder / "lens.tif", "--json", "--png", tmp_path / "b.png"))
    assert facts["png"] == str(tmp_path / "b.png")
    assert json.loads(call("inspect", folder / "lens.tif", "--json"))["psf"]["field"]["kind"] == "lens"


def test_psf_check_judges_a_field(folder):
    facts = json.loads(call("psf", "check", folder / "lens.tif", folder / "seen.tif", "--json"))
    assert 0 <= facts["likeness"] <= 1
    assert facts["gain"] > 1


def test_psf_estimate_with_field_none_writes_one_kernel(folder, tmp_path):
    call("psf", "estimate", folder / "seen.tif", "-o", tmp_path / "one.tif", "--field", "none")
    assert len(load_psf(tmp_path / "one.tif").components) == 1


@pytest.mark.thorough
def test_psf_estimate_fits_a_lens_to_several_images(tmp_path):
    """Each alone has too few parts."""
    lens = LensBlur(((0.3, 2.6),)).field(0.0, {})
    names = []
    for seed in (1, 2, 3, 4):
        sharp = Photograph(760 + lens.size - 1, 600 + lens.size - 1, 0.0, seed=seed).rows(0, 600 + lens.size - 1)
        seen = np.clip(blur(sharp, lens) + np.random.default_rng(seed).normal(0, 0.002, (600, 760, 3)), 0, 1)
        names.append(tmp_path / f"{seed}.tif")
        tifffile.imwrite(names[-1], np.rint(65535 * SRGB.encode(seen)).astype(np.uint16), photometric="rgb")
    call("psf", "estimate", *names, "-o", tmp_path / "lens.tif")
    found = load_psf(tmp_path / "lens.tif")
    assert isinstance(found, PSFField)
    assert found.made_by["images"] == 4
    assert found.made_by["image"] == {"width": 760, "height": 600}
    curve = found.made_by["lens"]["variance"][0]
    assert curve[0] == pytest.approx(0.3, abs=0.3)
    assert sum(curve) > curve[0] + 0.8


def test_a_run_reports_a_field_of_another_size(folder, tmp_path):
    field = PSFField(LENS.components, LENS.places, LENS.made_by | {"image": {"width": 1000, "height": 800}})
    events = []
    make_plan(folder / "seen.tif", psf=field, cache=str(tmp_path / "c"), quality="fast", on_event=events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("the PSF field is of images of 1000 x 800 px, this one has 500 x 400" in note for note in notes)


def test_a_field_of_another_focal_length_is_reported(tmp_path):
    exif = Image.Exif()
    exif[271], exif[272] = "Acme", "One"
    exif.get_ifd(0x8769).update({37386: IFDRational(50, 1), 33437: IFDRational(28, 10), 42036: "Acme 50 mm"})
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    reader = open_image(tmp_path / "a.jpg")
    info = reader.info
    reader.close()
    known = {"camera": "Acme One", "lens": "Acme 50 mm", "focal_length": 50.0, "aperture": 2.8}
    assert camera_facts(info.metadata) == known
    assert field_mismatches(PSFField(LENS.components, LENS.places, {"camera": known}), info) == []
    field = PSFField(LENS.components, LENS.places, {"camera": known | {"focal_length": 24.0}})
    assert field_mismatches(field, info) == ["the PSF field is of a focal length of 24.0, this image of 50.0"]
    assert field_mismatches(gaussian(1), info) == []


def test_plan_reports_the_field(folder, tmp_path):
    plan = json.loads(
        call("plan", folder / "seen.tif", "--psf", folder / "lens.tif", "--json", "--cache", tmp_path / "c")
    )
    assert plan["psf"]["size"] == LENS.size
    assert plan["psf"]["made_by"]["nearest"] == "a lens"
