"""Results of planning (PSF, parameters, halo), stored in the image's cache so that a resumed run reuses them.

Estimating the blur and measuring the halo take seconds to a minute and are deterministic.  A run stores the results in
the source's folder as soon as they are available; later plans for the same bytes and settings read them from there.
They remain in use for an edited image while most of it is unchanged (:func:`still_valid`).  A damaged or foreign file
is ignored.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import scipy

from tilepipe.cache.layout import memo_file
from tilepipe.deconv.parameters import ALGORITHM_VERSION
from tilepipe.deconv.transforms import LIBRARY
from tilepipe.errors import InputError, PsfError
from tilepipe.image.light import Light
from tilepipe.planning.sample import Sample
from tilepipe.planning.tuning import TUNING_VERSION, Tuning
from tilepipe.psf.blind.narrow import ESTIMATOR_VERSION
from tilepipe.psf.field import AnyPSF, psf_from_bytes
from tilepipe.recipe import levels_from
from tilepipe.settings import Settings
from tilepipe.system.files import read_sealed, write_sealed
from tilepipe.system.object_store import StoragePath

__all__ = ["Memo", "libraries", "memo_key", "recall", "remember", "still_valid"]

UNCHANGED = 0.5
"""Smallest share of the sampled blocks that an edit must leave bit-identical for the parameters to be kept."""

NOISE_DRIFT = 0.1
"""Largest relative change of the noise for the parameters to be kept; lambda grows at most with its power of 1.4
(1.7 with the log prior)."""


@dataclass(frozen=True)
class Memo:
    """PSF and parameters of an image.

    Parameters
    ----------
    psf : PSF or PSFField
        Given or estimated.
    tuning : Tuning or None
        None when the blur has been estimated but the halo not yet measured.
    blocks : tuple of str
        Digests of the sampled windows, see :meth:`tilepipe.planning.sample.Sample.blocks`.
    unit : float
        Of the image's :class:`~tilepipe.image.light.Light`.
    white : tuple of float or None
        Clipping level of each colour, likewise.
    check : dict or None
        Result of the last check, see :meth:`tilepipe.planning.last_check.Check.facts`; None when no check was made.
    """

    psf: AnyPSF
    tuning: Tuning | None
    blocks: tuple[str, ...]
    unit: float
    white: tuple[float, ...] | None
    check: dict[str, Any] | None

    def light(self, light: Light) -> Light:
        """Return `light` with the measured levels."""
        return replace(light, unit=self.unit, white=self.white)


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A memo on disk; `psf` is the content of a PSF file.

    `content` is the SHA-256 of the image file that the memo belongs to.
    """

    content: str
    psf: bytes
    tuning: Tuning | None
    blocks: tuple[str, ...]
    unit: float
    white: tuple[float | None, ...] | None
    check: dict[str, Any] | None


def libraries() -> str:
    """Return names and versions of the libraries that influence the parameters."""
    return ", ".join(dict.fromkeys((LIBRARY, f"scipy {scipy.__version__}", f"numpy {np.__version__}")))


def memo_key(given: AnyPSF | None, settings: Settings) -> str:
    """Return a hexadecimal digest of everything but the pixels that a memo depends on.

    Parameters
    ----------
    given : PSF, PSFField or None
        The user's PSF; None when the blur is estimated.
    settings : Settings
        Only those that influence the memo are part of the digest.
    """
    key = {
        "versions": [ALGORITHM_VERSION, ESTIMATOR_VERSION, TUNING_VERSION, libraries()],
        "psf": None if given is None else given.digest,
        "look": None
        if given
        else [
            settings.blur,
            settings.window,
            settings.psf_per_channel,
            settings.target,
            settings.field,
        ],
        "samples": [settings.input_curve, settings.white, settings.nodata],
        "priority": settings.priority_value,
        "quality": settings.quality,
        "solver": settings.solver,
        "refocus": settings.refocus,
        "tolerance": settings.tolerance,
        "luminance_only": settings.luminance_only,
        "halo": settings.halo,
        "tile": settings.tile,  # determines whether there are seams
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def recall(root: StoragePath, content: str, key: str) -> Memo | None:
    """Return the memo for the image with SHA-256 `content`; None if the cache at `root` has none."""
    data = read_sealed(memo_file(root, content, key))
    if data is None:
        return None
    try:
        stored = msgspec.json.decode(data, type=Stored)
        psf = psf_from_bytes(stored.psf, "the memo")
    except (ValueError, InputError, PsfError):  # another format; msgspec's errors are ValueErrors
        return None
    return (
        Memo(psf, stored.tuning, stored.blocks, stored.unit, levels_from(stored.white), stored.check)
        if stored.content == content
        else None
    )


def remember(root: StoragePath, content: str, key: str, memo: Memo) -> None:
    """Write the memo for the image with SHA-256 `content` to the cache at `root`."""
    stored = Stored(
        content=content,
        psf=memo.psf.to_bytes(),
        tuning=memo.tuning,
        blocks=memo.blocks,
        unit=memo.unit,
        white=memo.white,
        check=memo.check,
    )
    write_sealed(memo_file(root, content, key), msgspec.json.encode(stored))


def still_valid(memo: Memo, sample: Sample) -> tuple[bool, str]:
    """Return whether `memo` is also valid for the edited image that `sample` was read from, and the reason as text.

    It is while at least ``UNCHANGED`` of the sampled blocks are unchanged and the noise changed by at most
    ``NOISE_DRIFT``; otherwise the file is treated as holding another image.
    """
    sample = replace(sample, light=memo.light(sample.light))
    blocks, tuning = sample.blocks(), memo.tuning
    if tuning is None or len(blocks) != len(memo.blocks):
        return False, "it is another image"
    same = sum(a == b for a, b in zip(blocks, memo.blocks, strict=True)) / len(blocks)
    drift = abs(sample.noise.sigma / tuning.noise - 1) if tuning.noise else 0.0
    why = (
        f"{100 * same:.0f} % of its sampled blocks are unchanged (limit {100 * UNCHANGED:.0f} %), "
        f"noise changed by {100 * drift:.1f} % (limit {100 * NOISE_DRIFT:.0f} %)"
    )
    return same >= UNCHANGED and drift <= NOISE_DRIFT, why
