"""Looking for windows: the picture goes by once, in bands."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
import tifffile

from tilepipe.image.info import ImageReader
from tilepipe.image.readers import open_image
from tilepipe.planning.inspection import inspect_reader
from tilepipe.testing.scenes import BlurredScene, Scene, write_scene
from tilepipe.testing.shakes import shake

HEIGHT, WIDTH = 1300, 1100


class Watched(ImageReader):
    """A reader that remembers which rows were asked for."""

    def __init__(self, reader: ImageReader) -> None:
        self.reader, self.info = reader, reader.info
        self.asked: list[tuple[int, int]] = []

    def rows(self, top, bottom):
        self.asked.append((top, bottom))
        return self.reader.rows(top, bottom)

    def close(self):
        self.reader.close()


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    path = tmp_path_factory.mktemp("look") / "scene.tif"
    write_scene(path, Scene(WIDTH, HEIGHT, seed=1))
    reader = Watched(open_image(path))
    inspection = inspect_reader(reader)
    reader.close()
    return reader.asked, inspection


def test_the_choice_reads_every_row_once_in_narrow_bands(looked):
    asked, _ = looked
    choosing = asked[: -(-HEIGHT // 256)]
    assert [top for top, _ in choosing] == [0, *(bottom for _, bottom in choosing[:-1])]
    assert choosing[-1][1] == HEIGHT
    assert max(bottom - top for top, bottom in choosing) <= 256


def test_afterwards_the_rows_of_the_windows_are_read_once_from_the_top_down(looked):
    """Formats that are decoded from the top down are decoded once for all windows."""
    asked, inspection = looked
    again = asked[-(-HEIGHT // 256) :]
    assert max(bottom - top for top, bottom in again) <= 256
    assert all(bottom <= top for (_, bottom), (top, _) in pairwise(again))
    read = np.zeros(HEIGHT, bool)
    for top, bottom in again:
        read[top:bottom] = True
    assert all(read[y0:y1].all() for y0, y1, _, _ in inspection.boxes)
    assert len(inspection.large) <= read.sum() <= HEIGHT


def test_three_windows_hardly_overlap_and_hold_all_colours(looked):
    _, inspection = looked
    assert len(inspection.boxes) == len(inspection.colours) == len(inspection.windows) == 3
    for (y0, y1, x0, x1), colours, window in zip(inspection.boxes, inspection.colours, inspection.windows, strict=True):
        assert colours.shape == (3, y1 - y0, x1 - x0)
        np.testing.assert_allclose(colours.mean(0), window, atol=1e-6)
    covered = np.zeros((HEIGHT, WIDTH), int)
    for y0, y1, x0, x1 in inspection.boxes:
        covered[y0:y1, x0:x1] += 1
    assert (covered > 1).sum() < 0.25 * covered.sum()


def test_clipped_highlights_are_not_taken_for_sharp_edges(tmp_path):
    truth = shake(11, 3)
    scene = Scene(300, 300, seed=4)
    blurred = BlurredScene(scene, truth, 0.003)
    y, x = np.mgrid[:300, :300]
    lamps = scipy.ndimage.gaussian_filter(((x % 60 - 30) ** 2 + (y % 75 - 37) ** 2 < 100).astype(float), 3)
    light = np.clip(blurred.rows(0, 300) + 2 * lamps[:, :, None], 0, 1)
    tifffile.imwrite(tmp_path / "lamps.tif", np.rint(light * 65535).astype(np.uint16), photometric="rgb", metadata=None)
    reader = open_image(tmp_path / "lamps.tif")
    inspection = inspect_reader(reader, 13, (150, 150, 280))
    reader.close()
    (y0, y1, x0, x1), window = inspection.boxes[0], inspection.windows[0]
    decoded = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    assert (window > 0.98).mean() > 0.02, "some of it is clipped"
    np.testing.assert_allclose(window, decoded[y0:y1, x0:x1].mean(2), atol=1e-4)


def test_the_window_for_wide_kernels_is_the_mean_of_the_colours_and_at_most_a_megapixel(looked):
    _, inspection = looked
    assert inspection.large.shape == (1022, 1022)
    assert np.isfinite(inspection.large).all()


def test_a_small_window_that_was_asked_for_holds_no_wide_kernels(tmp_path):
    path = tmp_path / "scene.tif"
    write_scene(path, Scene(700, 600, seed=1))
    reader = open_image(path)
    assert inspect_reader(reader, None, (300, 300, 255)).large is None
    assert inspect_reader(reader, None, (300, 300, 401)).large.shape == (401, 401)
    reader.close()
