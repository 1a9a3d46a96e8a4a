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
def test_transforms_agree_with_numpy_and_write_where_they_are_told_to(library, shape):
    plane = np.random.default_rng(0).random(shape, np.float32)
    spectrum, back = np.empty((shape[0], shape[1] // 2 + 1), np.complex64), np.empty_like(plane)
    assert forward(plane, spectrum) is spectrum
    assert np.abs(spectrum - np.fft.rfft2(plane, norm="ortho")).max() < 2e-6 * np.sqrt(plane.size)
    assert inverse(spectrum, back) is back
    assert np.abs(back - plane).max() < 1e-6


@pytest.mark.parametrize("shape", [(48, 64), (81, 45)])
def test_no_memory_is_asked_for(library, shape):
    import tracemalloc

    plane, back = np.ones(shape, np.float32), np.empty(shape, np.float32)
    spectrum = np.empty((shape[0], shape[1] // 2 + 1), np.complex64)
    inverse(forward(plane, spectrum), back)
    tracemalloc.start()
    inverse(forward(plane, spectrum), back)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < plane.nbytes // 2


def test_the_library_is_named_with_its_version():
    name, version = transforms.LIBRARY.split()
    assert name == ("scipy" if transforms._fft is None else "ducc0")
    assert version[0].isdigit()
