"""What is decided about a picture's blur: none, a slight one or a strong one."""

from dataclasses import replace

import numpy as np
import pytest

from tilepipe.planning import find_psf as blind
from tilepipe.planning.find_psf import MIN_CONFIDENCE, find_psf
from tilepipe.planning.inspection import inspect_array
from tilepipe.psf.blind.narrow import Estimate, likeness
from tilepipe.psf.blind.slight import measure_slight_blur, slight_psf
from tilepipe.testing import degrade
from tilepipe.testing.scenes import Scene
from tilepipe.testing.shakes import shake

LENGTH = 35
EDGE = 480

WRONG = Estimate(
    kernel=np.full((LENGTH, LENGTH), LENGTH**-2, np.float32),
    agreement=0.3,
    border=0.3,
    gain=1.0,
    misfit=5.0,
    relief=3.0,
    sharp=False,
)
"""A free-form kernel that nothing speaks for."""


def look_through(psf, contrast=1.0, noise=0.004, seed=8):
    """Look at a scene behind a shake; of a low contrast it does not rise far above its noise."""
    edge = EDGE + psf.size - 1
    scene = np.float32(0.02) + np.float32(contrast) * Scene(edge, edge, seed).rows(0, edge)
    return inspect_array(degrade(scene, psf, noise).mean(2), None, None)


@pytest.fixture(scope="module")
def faint():
    """A scene behind a shake of 35 px that a Gaussian of 1 px explains as well."""
    inspection = look_through(shake(LENGTH, 5), contrast=0.4)
    assert measure_slight_blur(inspection.power, inspection.noise, inspection.edges).explains
    return inspection


@pytest.fixture
def searches(monkeypatch):
    """Let every search for a strong blur end at WRONG; return how they were called."""
    calls = []

    def search(*arguments, **settings):
        calls.append(settings)
        return WRONG

    monkeypatch.setattr(blind, "estimate_strong_blur", search)
    return calls


@pytest.mark.thorough
def test_a_shake_is_found_where_a_slight_blur_explains_the_spectrum(faint):
    found = find_psf(faint, threads=2).psf
    assert found.confidence > 0.8
    assert likeness(found.kernel, shake(LENGTH, 5).kernel) > 0.9


def test_a_wide_blur_that_is_asked_for_is_looked_for_in_earnest(faint, searches):
    find_psf(faint, LENGTH)
    find_psf(faint, 11)
    find_psf(faint)
    assert [settings["doubted"] for settings in searches] == [False, True, True]


def test_a_kernel_that_nothing_speaks_for_gives_way_to_the_slight_blur(faint, searches):
    blur = find_psf(faint, LENGTH)
    assert searches
    assert blur.estimate is None
    assert blur.psf.size < LENGTH


@pytest.mark.parametrize("confidence", [0.45, 0.55])
def test_a_kernel_that_is_not_taken_is_refused(faint, searches, monkeypatch, confidence):
    monkeypatch.setattr(blind._RippleEvidence, "judge", lambda trace, estimate: (False, confidence))
    monkeypatch.setattr(blind._RippleEvidence, "is_surely_rippled", True)
    monkeypatch.setattr(
        blind, "measure_slight_blur", lambda *seen: replace(measure_slight_blur(*seen), misfit=9.0, allowed=0.1)
    )
    blur = find_psf(faint)
    assert blur.estimate is WRONG
    assert blur.psf.confidence < MIN_CONFIDENCE


def test_a_kernel_that_is_the_slight_blur_but_for_ripple_gives_way_to_it(faint, monkeypatch):
    slight = measure_slight_blur(faint.power, faint.noise, faint.edges)
    rippled = slight_psf(slight, 0.0).kernel.copy()
    rippled[::2] *= np.float32(1.3)
    same = replace(WRONG, kernel=rippled / rippled.sum(), agreement=0.99)
    monkeypatch.setattr(blind, "estimate_strong_blur", lambda *arguments, **settings: same)
    monkeypatch.setattr(blind._RippleEvidence, "judge", lambda trace, estimate: (True, 0.99))
    blur = find_psf(faint)
    assert blur.estimate is None
    assert blur.psf.made_by["shape"] == "gaussian"
