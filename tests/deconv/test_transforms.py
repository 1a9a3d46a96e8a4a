"""Transforms are the same whichever library makes them, up to rounding, and write where they are told to."""

import numpy as np
import pytest

from tilepipe.deconv import transforms
from tilepipe.deconv.transforms import forward, inverse


@pytest.fixture(params=["scipy", "ducc0"])
def library(request, monkeypatch):
    monkeypatch.setattr(
        transforms, "_fft", None if request.param == "scipy" else pytest.importorskip("ducc0", exc_type=ImportError).fft
    )
    return request.param


@pytest.mark.parametrize("shape", [(36, 40), (37, 41), (64, 96)])
def test_transforms_agree_with_numpy(library, shape):
    plane = np.random.default_rng(0).random(shape, np.float32)
    spectrum = forward(plane)
    assert spectrum.dtype == np.complex64
    assert np.abs(spectrum - np.fft.rfft2(plane)).max() < 2e-6 * plane.size
    back = inverse(spectrum.copy(), shape)
    assert back.dtype == np.float32
    assert np.abs(back - plane).max() < 1e-6


def test_memory_that_is_there_is_used_where_it_can_be(library):
    plane = np.random.default_rng(1).random((48, 64), np.float32)
    spectrum, back = np.empty((48, 33), np.complex64), np.empty_like(plane)
    made = forward(plane, spectrum)
    assert np.shares_memory(made, spectrum) == (library == "ducc0")
    assert np.array_equal(inverse(made.copy(), plane.shape, back), inverse(made.copy(), plane.shape))
    assert np.shares_memory(inverse(made, plane.shape, back), back) == (library == "ducc0")


def test_the_library_is_named_with_its_version():
    name, version = transforms.LIBRARY.split()
    assert name == ("ducc0" if transforms.IN_PLACE else "scipy")
    assert version[0].isdigit()
