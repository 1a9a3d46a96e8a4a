"""Arrays in memory and lazy ones: the same numbers."""

import dask.array as da
import numpy as np
import pytest

from tilepipe.arrays.deconvolve import deconvolve
from tilepipe.errors import SettingsError
from tilepipe.psf.shapes import gaussian
from tilepipe.testing import Scene, degrade

PSF = gaussian(1)


@pytest.fixture(scope="module")
def seen():
    return degrade(Scene(280, 230, seed=2).rows(0, 230), PSF, 0.01)


@pytest.mark.parametrize("channels", [None, 3])
def test_a_dask_array_gives_the_numbers_of_a_numpy_array(seen, channels):
    picture = seen[..., 1] if channels is None else seen
    options = {"tile": 100, "quality": "fast"}  # the numbers are the same after any number of steps
    lazy = deconvolve(da.from_array(picture, chunks=(100, 64, 3)[: picture.ndim]), PSF, **options)
    assert isinstance(lazy, da.Array)
    assert lazy.shape == picture.shape
    assert max(lazy.chunks[0] + lazy.chunks[1]) <= 100
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), deconvolve(picture, PSF, **options))


def test_only_windows_are_computed_before_the_result_is_asked_for():
    computed = []

    def rows(block_info=None):
        where = block_info[None]["array-location"]
        computed.append(where)
        return np.random.default_rng(1).normal(0.5, 0.05, (512, 512)).astype(np.float32)

    picture = da.map_blocks(rows, chunks=((512,) * 8, (512,) * 8), dtype=np.float32, meta=np.empty((0, 0), np.float32))
    lazy = deconvolve(picture, PSF, quality="fast", tile=512)
    before = len(computed)
    assert before < 64
    lazy[:100, :100].compute(scheduler="synchronous")
    assert len(computed) - before <= 30


def test_a_delta_passes_arrays_through_as_they_are(seen):
    picture = seen[..., 0].copy()
    picture[40:43, 50:53] = np.nan
    delta = np.ones((1, 1), np.float32)
    lazy = deconvolve(da.from_array(picture, chunks=70), delta, tile=100).compute(scheduler="synchronous")
    whole = deconvolve(picture, delta, tile=100)
    np.testing.assert_array_equal(lazy, picture)
    np.testing.assert_array_equal(whole, picture)


def test_more_steps_are_a_better_picture(seen):
    sharp = Scene(280, 230, seed=2).rows(0, 230)[4:-4, 4:-4]
    errors = {
        q: np.square(deconvolve(seen, PSF, quality=q) - sharp)[16:-16, 16:-16].mean()
        for q in ("fast", "normal", "best")
    }
    assert errors["fast"] > errors["normal"] > 0.97 * errors["best"]


def test_an_unknown_quality_is_refused(seen):
    with pytest.raises(SettingsError, match="fast, normal, best"):
        deconvolve(seen, PSF, quality="superb")


def test_a_delta_gives_float32_of_masked_arrays_too(seen):
    masked = np.ma.masked_array((seen[..., 1] * 1000).astype(np.int16), mask=seen[..., 1] > 0.5)
    out = deconvolve(masked, np.ones((1, 1), np.float32))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out.mask, masked.mask)
    np.testing.assert_array_equal(out.data, masked.data)


def test_chunks_of_unknown_size_are_refused_with_the_way_out(seen):
    lazy = da.from_array(seen[..., 1], chunks=70)
    unknown = lazy[lazy.mean(1) > -1]
    with pytest.raises(SettingsError, match="compute_chunk_sizes"):
        deconvolve(unknown, PSF)
