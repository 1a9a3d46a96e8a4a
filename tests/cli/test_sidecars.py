"""XMP sidecars go with the picture when asked."""

import numpy as np
import pytest
import tifffile

import tilepipe
from tilepipe.errors import OutputExistsError
from tilepipe.events import Note
from tilepipe.psf.shapes import delta


@pytest.fixture
def photo(tmp_path):
    tifffile.imwrite(tmp_path / "photo.tif", np.full((20, 30), 90, np.uint8))
    return tmp_path / "photo.tif"


def run(photo, notes=None, **options):
    def listen(event):
        if isinstance(event, Note) and notes is not None:
            notes.append(event.text)

    options = {"psf": delta(), "cache": str(photo.parent / "cache")} | options
    overwrite = options.pop("overwrite", False)
    tilepipe.plan(photo, photo.with_name("out.tif"), on_event=listen, **options).run(listen, overwrite=overwrite)


@pytest.mark.parametrize("names", [("photo.xmp",), ("photo.tif.xmp",), ("photo.xmp", "photo.tif.xmp"), ("photo.XMP",)])
def test_sidecars_are_copied_when_asked(photo, names):
    for name in names:
        photo.with_name(name).write_text(f"<x:xmpmeta>{name}</x:xmpmeta>")
    run(photo)
    assert not list(photo.parent.glob("out*.[xX]*"))
    run(photo, sidecar=True, overwrite=True)
    for name in names:
        copy = photo.with_name(name.replace("photo", "out"))
        assert copy.read_text() == photo.with_name(name).read_text()


def test_a_sidecar_that_is_there_already_is_left_alone(photo):
    photo.with_suffix(".xmp").write_text("new")
    photo.with_name("out.xmp").write_text("old")
    with pytest.raises(OutputExistsError, match=r"out\.xmp exists"):
        run(photo, sidecar=True)
    assert photo.with_name("out.xmp").read_text() == "old"
    assert not photo.with_name("out.tif").exists(), "seen before the run"
    run(photo, sidecar=True, overwrite=True)
    assert photo.with_name("out.xmp").read_text() == "new"


def test_a_picture_without_a_sidecar_is_said(photo):
    notes = []
    run(photo, notes, sidecar=True)
    assert "note     photo.tif has no XMP sidecar to copy" in notes
