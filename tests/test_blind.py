"""Looking for windows: the picture goes by once, in bands."""

import numpy as np
import pytest

from tilepipe.blind import look_at
from tilepipe.image.info import ImageReader
from tilepipe.image.read import open_image
from tilepipe.testing.scenes import Scene, write_scene

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
    look = look_at(reader)
    reader.close()
    return reader.asked, look


def test_the_choice_reads_every_row_once_in_narrow_bands(looked):
    asked, look = looked
    choosing = asked[: -sum(-(-len(window) // 256) for window in look.windows)]
    assert [top for top, _ in choosing] == [0, *(bottom for _, bottom in choosing[:-1])]
    assert choosing[-1][1] == HEIGHT
    assert max(bottom - top for top, bottom in asked) <= 256


def test_afterwards_only_the_rows_of_the_windows_are_read(looked):
    asked, look = looked
    again = sum(bottom - top for top, bottom in asked) - HEIGHT
    assert again == sum(len(window) for window in look.windows)


def test_three_windows_hardly_overlap_and_hold_all_colours(looked):
    _, look = looked
    assert len(look.boxes) == len(look.colours) == len(look.windows) == 3
    for (y0, y1, x0, x1), colours, window in zip(look.boxes, look.colours, look.windows, strict=True):
        assert colours.shape == (3, y1 - y0, x1 - x0)
        np.testing.assert_allclose(colours.mean(0), window, atol=1e-6)
    covered = np.zeros((HEIGHT, WIDTH), int)
    for y0, y1, x0, x1 in look.boxes:
        covered[y0:y1, x0:x1] += 1
    assert (covered > 1).sum() < 0.25 * covered.sum()
