"""Where to look: edges in every direction, in focus, unclipped, and no noise."""

import numpy as np
import pytest
import scipy.ndimage

from tilepipe.psf.blind.windows import BLOCK, WindowRanking

HEIGHT, WIDTH, SIZE = 640, 960, 192


def scouted(picture, band=4 * BLOCK, count=1, size=SIZE):
    ranking = WindowRanking(*picture.shape)
    for top in range(0, picture.shape[0], band):
        ranking.add(top, picture[top : top + band].astype(np.float32))
    return ranking.best(count, size)


def disks(seed, height=SIZE, width=SIZE):
    """Edges in all directions."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.full((height, width), 0.4)
    for _ in range(60):
        cy, cx, radius, tone = (
            random.uniform(0, height),
            random.uniform(0, width),
            random.uniform(5, 25),
            random.random(),
        )
        picture[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = 0.1 + 0.7 * tone
    return picture


def picture_with(patch, other=0.4, noise=0.01):
    """A flat picture with one patch at the right and another one at the left, all under noise."""
    picture = np.full((HEIGHT, WIDTH), 0.4)
    picture[224:416, 544:736] = patch
    picture[224:416, 64:256] = other
    return picture + np.random.default_rng(0).normal(0, noise, (HEIGHT, WIDTH))


def share_inside(window, top=224, left=544):
    y0, y1, x0, x1 = window
    height = max(0, min(y1, top + SIZE) - max(y0, top))
    width = max(0, min(x1, left + SIZE) - max(x0, left))
    return height * width / SIZE**2


def test_the_patch_with_edges_is_found():
    assert share_inside(scouted(picture_with(disks(1)))[0]) > 0.7


def test_edges_in_all_directions_beat_stronger_stripes():
    stripes = 0.1 + 0.8 * (np.arange(SIZE) // 12 % 2)[None, :]
    assert share_inside(scouted(picture_with(disks(1), stripes))[0]) > 0.7


def test_noise_is_no_texture():
    picture = picture_with(0.4 + 0.3 * (disks(2) - 0.4), noise=0.05)
    assert share_inside(scouted(picture)[0]) > 0.7


def test_clipped_parts_are_shunned():
    clipped = disks(1) * 1.5
    clipped[clipped > 0.6] = np.nan
    assert share_inside(scouted(picture_with(disks(1), clipped))[0]) > 0.7


def test_of_two_like_patches_the_one_in_focus_is_taken():
    soft = scipy.ndimage.gaussian_filter(disks(1), 4)
    assert share_inside(scouted(picture_with(disks(1), soft))[0]) > 0.7


@pytest.mark.parametrize("angle", [0, 45, 90, 135])
def test_no_direction_is_overlooked(angle):
    """Quarters with stripes of one direction each: the patch with all four wins, whichever the other one lacks."""
    y, x = np.mgrid[: SIZE // 2, : SIZE // 2]

    def quarters(angles):
        waves = [0.4 + 0.1 * np.sin((x * np.cos(a) + y * np.sin(a)) / 3) for a in np.radians(angles)]
        return np.block([waves[:2], waves[2:]])

    all_four = [0, 45, 90, 135]
    three = [at if at != angle else (angle + 90) % 180 for at in all_four]
    assert share_inside(scouted(picture_with(quarters(all_four), quarters(three), noise=0.003))[0]) > 0.7


def test_bands_do_not_matter():
    picture = np.tile(disks(3), (4, 5))[:HEIGHT, :WIDTH]
    at_once, in_bands = (scouted(picture, band, count=3) for band in (HEIGHT, 8 * BLOCK))
    assert len(at_once) == len(in_bands) == 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_windows_lie_inside_and_hardly_overlap(count):
    picture = np.tile(disks(3), (4, 5))[:HEIGHT, :WIDTH] + np.random.default_rng(1).normal(0, 0.01, (HEIGHT, WIDTH))
    windows = scouted(picture, count=count)
    assert len(windows) == count
    for y0, y1, x0, x1 in windows:
        assert 0 <= y0 < y1 <= HEIGHT
        assert 0 <= x0 < x1 <= WIDTH
        assert (y1 - y0, x1 - x0) == (SIZE, SIZE)
    for i, (y0, y1, x0, x1) in enumerate(windows):
        for v0, v1, u0, u1 in windows[:i]:
            common = max(0, min(y1, v1) - max(y0, v0)) * max(0, min(x1, u1) - max(x0, u0))
            assert common < SIZE**2 / 4


def test_a_small_picture_is_one_window():
    assert scouted(disks(1, 100, 150), size=383) == [(0, 100, 0, 150)]
