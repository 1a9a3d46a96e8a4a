"""Richardson-Lucy is the textbook's, keeps light, and its momentum saves steps."""

import numpy as np
import pytest

from tilepipe.deconv.convolution import DARK
from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.richardson_lucy import find_momentum
from tilepipe.deconv.solvers import restore
from tilepipe.psf.model import PSF as Blur
from tilepipe.psf.shapes import gaussian, motion
from tilepipe.testing import Scene, degrade, psnr


def without_faint_taps(psf):
    """What the direct convolutions would leave out is not there: the textbook leaves nothing out."""
    kernel = np.where(psf.kernel > 0.02 * psf.kernel.max(), psf.kernel, 0)
    return Blur(kernel / kernel.sum())


PSF = without_faint_taps(motion(9, 25))


def textbook(y, start, psf, lam, momentum):
    """float64 numpy, one line a line of the mathematics; the rim of half a PSF is unknown."""
    shape, reach = y.shape[1:], psf.size // 2
    otf = Spectrum.of(psf.planes, shape).otf(0).astype(np.complex128)

    def through(a, transfer):
        return np.fft.irfft2(np.fft.rfft2(a) * transfer, s=shape)

    mask = np.isfinite(y)
    mask[:, :reach], mask[:, -reach:], mask[:, :, :reach], mask[:, :, -reach:] = (False,) * 4
    data = np.where(mask, np.maximum(np.nan_to_num(y), DARK), 0)
    x = last = np.maximum(start.astype(float), DARK)
    for a in momentum:
        p = np.maximum(x + a * (x - last), DARK)
        seen, share = (
            through(data / np.maximum(through(p, otf), DARK), np.conj(otf)),
            through(mask.astype(float), np.conj(otf)),
        )
        gy = np.concatenate([np.diff(p, axis=1), np.zeros((len(p), 1, shape[1]))], 1)
        gx = np.concatenate([np.diff(p, axis=2), np.zeros((len(p), shape[0], 1))], 2)
        gy[:, :, -1] = 0
        norm = np.sqrt((gy**2 + gx**2).sum(0) + 1e-8)
        fy, fx = lam * gy / norm, lam * gx / norm
        pull = np.pad(fy, ((0, 0), (1, 0), (0, 0)))[:, :-1] - fy + np.pad(fx, ((0, 0), (0, 0), (1, 0)))[:, :, :-1] - fx
        factor = np.where(share > 0.02, np.maximum(seen, 0) / np.maximum(share, 1e-9), 1)
        last, x = x, p * factor / np.maximum(1 + pull, 0.25)
    return x


def work_of(y, start):
    work = Workspace(len(y), y.shape[1:])
    work.y[...], work.x[...] = y, start
    return work


def numbers(lam, momentum):
    return Parameters(lam, 0, 0, 1, len(momentum), solver="richardson-lucy", momentum=tuple(momentum))


@pytest.mark.parametrize("channels", [1, 3])
def test_it_equals_the_numpy_reference(channels):
    generator = np.random.default_rng(2)
    start = generator.uniform(0.05, 1, (channels, 50, 61)).astype(np.float32)
    y = start.copy()
    y[generator.random(y.shape) < 0.1] = np.nan
    momentum = (0.0, 0.0, 0.3, 0.5, 0.8)
    work = work_of(y, start)
    found = restore(work, Spectrum.of(PSF.planes, work.shape), numbers(0.02, momentum))
    np.testing.assert_allclose(found, textbook(y, start, PSF, 0.02, momentum), atol=2e-4, rtol=2e-3)


def test_the_picture_stays_positive_where_data_are_not():
    y = np.random.default_rng(3).normal(0.0, 0.1, (1, 64, 64)).astype(np.float32)
    work = work_of(y, y)
    found = restore(work, Spectrum.of(gaussian(1.5).planes, work.shape), numbers(0.01, (0.0,) * 10))
    assert (found >= 0).all()
    assert np.isfinite(found).all()


def test_momentum_begins_at_rest_stays_below_one_and_saves_steps():
    psf = gaussian(1.8)
    sharp = Scene(200, 200, seed=2).rows(0, 200)[..., :1]
    seen = np.moveaxis(degrade(sharp, psf, 0.002), -1, 0)
    spectrum = Spectrum.of(psf.planes, seen.shape[1:])
    series = find_momentum(work_of(seen, seen), spectrum, 1e-4, 15)
    assert series[:2] == (0.0, 0.0)
    assert all(0 <= a < 1 for a in series)
    reach = psf.size // 2
    truth = np.moveaxis(sharp, -1, 0)[:, reach:-reach, reach:-reach]
    inside = np.s_[:, reach:-reach, reach:-reach]

    def quality(momentum):
        restored = restore(work_of(seen, seen), spectrum, numbers(1e-4, momentum))
        return psnr(restored[inside], truth[inside])

    assert quality(series) > quality((0.0,) * 30), "15 accelerated steps are worth more than 30 plain ones"
