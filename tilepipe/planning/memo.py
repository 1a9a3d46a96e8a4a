"""What was found out about a picture, kept with its cache: going on does not look and measure again.

Finding the blur and measuring the halo take seconds to a minute and give the same numbers every time.  A run
leaves them in the source's folder as soon as they are found; later plans for the same bytes and the same settings
take them from there.  An edited picture keeps them while most of it is what it was (:func:`still_valid`).  A
damaged or foreign file counts as none.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import scipy

from tilepipe.cache.layout import memo_file
from tilepipe.deconv.parameters import ALGORITHM_VERSION
from tilepipe.deconv.transforms import LIBRARY
from tilepipe.errors import PsfError
from tilepipe.image.light import Light
from tilepipe.planning.sample import Sample
from tilepipe.planning.tuning import TUNING_VERSION, Tuning
from tilepipe.psf.blind.narrow import ESTIMATOR_VERSION
from tilepipe.psf.model import PSF
from tilepipe.settings import Settings
from tilepipe.system.files import read_sealed, write_sealed

__all__ = ["Memo", "libraries", "memo_key", "recall", "remember", "still_valid"]

UNCHANGED = 0.5
"""Share of the sampled blocks that an edit must leave bit by bit as they were, for the numbers to stay."""

NOISE_DRIFT = 0.1
"""Share by which the noise may move for the numbers to stay; lambda grows with its power of 1.5 at most."""


@dataclass(frozen=True)
class Memo:
    """PSF and numbers of a picture.

    Parameters
    ----------
    tuning : None when the blur was found and the halo not yet measured.
    blocks : digests of the sampled windows they come from, see :meth:`tilepipe.planning.sample.Sample.blocks`.
    unit, white : of the picture's :class:`~tilepipe.image.light.Light`.
    check : what the last check found, see :class:`tilepipe.planning.last_check.Check`.
    """

    psf: PSF
    tuning: Tuning | None
    blocks: tuple[str, ...]
    unit: float
    white: tuple[float, ...] | None
    check: dict[str, Any] | None

    def light(self, light: Light) -> Light:
        """Return `light` with the levels that were measured."""
        return replace(light, unit=self.unit, white=self.white)


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A decision on disk: the PSF's planes (p, k, k) as little-endian float32 bytes, and what made it.

    `content` is the SHA-256 of the picture's bytes that it is for.
    """

    content: str
    shape: tuple[int, int, int]
    kernels: bytes
    made_by: dict[str, Any]
    tuning: Tuning | None
    blocks: tuple[str, ...]
    unit: float
    white: tuple[float, ...] | None
    check: dict[str, Any] | None


def libraries() -> str:
    """Return what the numbers depend on besides our own code, with versions."""
    return ", ".join(dict.fromkeys((LIBRARY, f"scipy {scipy.__version__}", f"numpy {np.__version__}")))


def memo_key(given: PSF | None, settings: Settings) -> str:
    """Return what is asked of a picture, as a hexadecimal digest: everything that a decision depends on but pixels.

    Parameters
    ----------
    given : the PSF when the user gave one.
    """
    asked = {
        "versions": [ALGORITHM_VERSION, ESTIMATOR_VERSION, TUNING_VERSION, libraries()],
        "psf": None if given is None else given.digest,
        "look": None if given else [settings.blur, settings.window, settings.psf_per_channel, settings.target],
        "samples": [settings.input_curve, settings.white, settings.nodata],
        "priority": settings.priority_value,
        "quality": settings.quality,
        "solver": settings.solver,
        "refocus": settings.refocus,
        "tolerance": settings.tolerance,
        "luminance_only": settings.luminance_only,
        "halo": settings.halo,
        "tile": settings.tile,  # decides whether there are seams
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def recall(root: Path, content: str, asked: str) -> Memo | None:
    """Return what was decided for the picture of SHA-256 `content`; None if that is not in the cache at `root`."""
    data = read_sealed(memo_file(root, content, asked))
    if data is None:
        return None
    try:
        stored = msgspec.json.decode(data, type=Stored)
        psf = PSF(np.frombuffer(stored.kernels, "<f4").reshape(stored.shape), stored.made_by)
    except (ValueError, PsfError):  # of another format; msgspec's errors are ValueErrors
        return None
    return (
        Memo(psf, stored.tuning, stored.blocks, stored.unit, stored.white, stored.check)
        if stored.content == content
        else None
    )


def remember(root: Path, content: str, asked: str, decision: Memo) -> None:
    """Keep what was decided for the picture of SHA-256 `content` in the cache at `root`."""
    planes = np.ascontiguousarray(decision.psf.planes, "<f4")
    stored = Stored(
        content=content,
        shape=planes.shape,
        kernels=planes.tobytes(),
        made_by=decision.psf.made_by,
        tuning=decision.tuning,
        blocks=decision.blocks,
        unit=decision.unit,
        white=decision.white,
        check=decision.check,
    )
    write_sealed(memo_file(root, content, asked), msgspec.json.encode(stored))


def still_valid(decision: Memo, sample: Sample) -> tuple[bool, str]:
    """Return whether `decision` holds for the edited picture of `sample` as well, and why, for people.

    It does while at least ``UNCHANGED`` of the sampled blocks are what they were and the noise has moved by no
    more than ``NOISE_DRIFT``: another picture in the same file is no edit.
    """
    sample = replace(sample, light=decision.light(sample.light))
    blocks, tuning = sample.blocks(), decision.tuning
    if tuning is None or len(blocks) != len(decision.blocks):
        return False, "it is another picture"
    same = sum(a == b for a, b in zip(blocks, decision.blocks, strict=True)) / len(blocks)
    drift = abs(sample.noise().sigma / tuning.noise - 1) if tuning.noise else 0.0
    why = (
        f"{100 * same:.0f} % of its samples are as they were (limit {100 * UNCHANGED:.0f} %), "
        f"noise moved by {100 * drift:.1f} % (limit {100 * NOISE_DRIFT:.0f} %)"
    )
    return same >= UNCHANGED and drift <= NOISE_DRIFT, why
