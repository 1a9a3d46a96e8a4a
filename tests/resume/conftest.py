"""A small picture whose decisions are known, see workplace.py."""

import shutil

import pytest
from workplace import PRIORITIES, PSF, Workplace, adopted, begun

from tilepipe.testing import BlurredScene, Scene, write_scene


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """The picture, its decisions for each of ``PRIORITIES``, and the files that undisturbed runs write."""
    place = Workplace(tmp_path_factory.mktemp("template"))
    write_scene(place.picture, BlurredScene(Scene(640, 300), PSF, 0.005))
    for priority in PRIORITIES:
        place.run(priority=priority, output=place.folder / f"{priority}.tif")
    return place


@pytest.fixture
def finished(template, tmp_path):
    """A copy of the template: every run is complete."""
    shutil.copytree(template.folder, tmp_path / "place")
    return adopted(Workplace(tmp_path / "place"))


@pytest.fixture
def place(finished):
    """A copy of the template in which nothing but decisions is left of the runs."""
    return begun(finished)
