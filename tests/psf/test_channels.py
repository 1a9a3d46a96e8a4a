"""Kernels of single colours are refined from the one they share."""

import numpy as np
import pytest
import scipy.signal

from tilepipe.arrays.deconvolve import deconvolve
from tilepipe.errors import PsfError
from tilepipe.planning.find_psf import estimate_psf
from tilepipe.psf.blind.channels import kernels_by_channel
from tilepipe.psf.kernel_ops import centroid, spread
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import gaussian
from tilepipe.testing.scenes import Scene

EDGE = 300
SIGMAS = (1.2, 1.7, 2.4)
LENS = np.stack([np.asarray(gaussian(sigma, 21).kernel) for sigma in SIGMAS])


@pytest.fixture(scope="module")
def seen():
    """A scene through a lens that blurs every colour differently, 0.3 % noise, and the scene; (h, w, 3)."""
    scene = Scene(EDGE + 20, EDGE + 20, seed=3).rows(0, EDGE + 20)
    blurred = np.stack([scipy.signal.fftconvolve(scene[..., c], LENS[c], "valid") for c in range(3)], -1)
    blurred += 0.003 * np.random.default_rng(1).standard_normal(blurred.shape)
    return blurred.astype(np.float32), scene[10:-10, 10:-10]


@pytest.fixture(scope="module")
def kernels(seen):
    shared = LENS.mean(0)
    return kernels_by_channel([np.ascontiguousarray(np.moveaxis(seen[0], -1, 0))], shared)


def error(restored, sharp, rim=24):
    return float(np.sqrt(((restored - sharp)[rim:-rim, rim:-rim] ** 2).mean()))


@pytest.mark.thorough
def test_the_colour_that_is_blurred_more_gets_the_wider_kernel(kernels):
    spreads = [spread(kernel) for kernel in kernels]
    assert spreads == sorted(spreads)
    assert spreads[0] < 0.85 * spreads[2]


def test_all_colours_have_one_centre_of_mass(kernels):
    places = np.array([centroid(kernel) for kernel in kernels])
    assert np.abs(places - places.mean(0)).max() < 0.05
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-5)
    assert kernels.min() >= 0


def test_own_kernels_restore_better_than_the_shared_one(seen, kernels):
    blurred, sharp = seen
    own, shared = (error(deconvolve(blurred, PSF(planes)), sharp) for planes in (kernels, LENS.mean(0)))
    assert own < 0.8 * shared


def test_a_gray_picture_has_one_kernel(seen):
    assert len(estimate_psf(seen[0][..., 1], 9, (150, 150, 150), per_channel=True).planes) == 1


def test_a_psf_for_other_colours_is_refused(seen):
    with pytest.raises(PsfError, match="3 colours, the image has 1"):
        deconvolve(seen[0][..., 0], PSF(LENS))
