"""The judge tells the true kernel from wrong ones by what they make of the picture."""

import numpy as np
import pytest

from tilepipe.psf.blind.scoring import Scorer
from tilepipe.psf.blind.splitting import Window
from tilepipe.psf.kernel_ops import delta_kernel, resize
from tilepipe.psf.shapes import disk, gaussian, motion
from tilepipe.testing import Scene, degrade

SIZE = 19
NOISE = 0.002
PSFS = {"motion": motion(11, 30, SIZE), "gaussian": gaussian(1.6, SIZE), "disk": disk(4, SIZE)}

of_each = pytest.mark.parametrize("name", sorted(PSFS))


def seen(psf, seed=3, edge=200):
    scene = Scene(edge + psf.size - 1, edge + psf.size - 1, seed)
    return np.ascontiguousarray(degrade(scene.rows(0, scene.height), psf, NOISE)[..., 1])


def judge_of(psf, *seeds):
    return Scorer([Window(seen(psf, seed), SIZE) for seed in seeds or (3,)], NOISE)


def wrong_ones(kernel):
    carpet = np.random.default_rng(0).random(kernel.shape, np.float32)
    return {
        "wider": resize(kernel, SIZE, 1.4),
        "narrower": resize(kernel, SIZE, 0.7),
        "no blur": delta_kernel(SIZE),
        "under a carpet of noise": 0.75 * kernel + 0.25 * carpet / carpet.sum(),
    }


TOO_NARROW = {("disk", "no blur"), ("gaussian", "no blur"), ("motion", "no blur"), ("gaussian", "narrower")}
"""Kernels so narrow that they explain the noise: the score prefers them, so it must not choose among these.

`find_psf` compares no such kernels by score: its candidates went through the same pruning and regularisation, and
whether there is a blur at all is decided by the spectrum and the edges.
"""


@pytest.mark.parametrize("kind", ["narrower", "no blur", "under a carpet of noise", "wider"])
@of_each
def test_the_true_kernel_wins_except_against_those_that_explain_the_noise(name, kind):
    kernel = np.asarray(PSFS[name].kernel)
    wrong = wrong_ones(kernel)[kind]
    for order in ((kernel, wrong), (wrong, kernel)):
        scorer = judge_of(PSFS[name])
        for one in order:
            scorer.score(one)
        won = scorer.best().kernel is kernel
        assert won == ((name, kind) not in TOO_NARROW), [(score.misfit, score.density) for score in scorer.scores]


@of_each
def test_the_true_kernel_leaves_about_the_noise_and_a_sparser_picture_than_wrong_ones(name):
    kernel, scorer = np.asarray(PSFS[name].kernel), judge_of(PSFS[name])
    true = scorer.score(kernel)
    wrong = {kind: scorer.score(one) for kind, one in wrong_ones(kernel).items()}
    assert true.misfit == pytest.approx(NOISE, rel=0.25)
    assert all(score.density > true.density for score in wrong.values())
    assert wrong["wider"].misfit > 1.5 * true.misfit


def test_verdicts_are_remembered_in_the_order_they_were_heard():
    kernel = np.asarray(PSFS["motion"].kernel)
    scorer = judge_of(PSFS["motion"])
    heard = [scorer.score(one) for one in (*wrong_ones(kernel).values(), kernel)]
    assert all(one is other for one, other in zip(scorer.scores, heard, strict=True))
    assert heard[-1].kernel is kernel
    assert scorer.best() is scorer.best()
    again = scorer.score(kernel)
    assert (again.misfit, again.density) == (heard[-1].misfit, heard[-1].density)


def test_several_windows_are_judged_together():
    """Squared misfits of windows of one size average; one window says the same as itself twice."""
    psf = PSFS["motion"]
    kernel = np.asarray(psf.kernel)
    alone = [judge_of(psf, seed).score(kernel) for seed in (3, 4)]
    both = judge_of(psf, 3, 4).score(kernel)
    assert both.misfit**2 == pytest.approx(np.mean([one.misfit**2 for one in alone]), rel=1e-5)
    twice = judge_of(psf, 3, 3).score(kernel)
    assert (twice.misfit, twice.density) == pytest.approx((alone[0].misfit, alone[0].density), rel=1e-5)


def test_a_flat_window_is_judged_without_complaint():
    scorer = Scorer([Window(np.full((100, 100), 0.5, np.float32), SIZE)], 0.0)
    score = scorer.score(np.asarray(PSFS["disk"].kernel))
    assert score.misfit == pytest.approx(0, abs=1e-5)
    assert np.isfinite(score.density)
