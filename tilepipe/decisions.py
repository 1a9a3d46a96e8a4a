"""What planning found out about a picture, kept with its cache: going on does not look and measure again.

Finding the blur and measuring the halo take seconds to a minute and give the same numbers every time.  A run
leaves them in the source's folder; a later plan for the same bytes and the same settings takes them from there.
A damaged or foreign file counts as none.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import scipy

from tilepipe.cache.ledger import write_durably
from tilepipe.cache.lifecycle import remembered_hash, source_folder
from tilepipe.deconv.parameters import ALGORITHM_VERSION
from tilepipe.errors import PsfError
from tilepipe.psf.estimate import ESTIMATOR_VERSION
from tilepipe.psf.model import PSF
from tilepipe.settings import Settings
from tilepipe.tuning import TUNING_VERSION, Tuning

__all__ = ["libraries", "question", "recall", "remember"]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The PSF's planes (p, k, k) as little-endian float32 bytes, what made it, and the numbers that follow from it.

    `content` is the SHA-256 of the picture's bytes that they are for.
    """

    content: str
    shape: tuple[int, int, int]
    kernels: bytes
    made_by: dict[str, Any]
    tuning: Tuning


def libraries() -> str:
    """Return what the numbers depend on besides our own code, with versions."""
    return f"scipy {scipy.__version__}, numpy {np.__version__}"


def question(given: PSF | None, settings: Settings) -> str:
    """Return what is asked of a picture, as a hexadecimal digest: everything that a decision depends on but pixels.

    Parameters
    ----------
    given : the PSF when the user gave one.
    """
    asked = {
        "versions": [ALGORITHM_VERSION, ESTIMATOR_VERSION, TUNING_VERSION, libraries()],
        "psf": None if given is None else given.digest,
        "look": None if given else [settings.blur, settings.window, settings.psf_per_channel],
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


def recall(root: Path, image: Path, asked: str) -> tuple[PSF, Tuning] | None:
    """Return PSF and numbers decided before for the bytes of `image`, None if there are none in the cache at `root`."""
    try:
        content = remembered_hash(root, image)
        if content is None:
            return None
        decision = msgspec.json.decode(_file(source_folder(root, content), asked).read_bytes(), type=Decision)
        kernels = np.frombuffer(decision.kernels, "<f4").reshape(decision.shape)
        return (PSF(kernels, decision.made_by), decision.tuning) if decision.content == content else None
    except (OSError, ValueError, PsfError):  # msgspec's errors are ValueErrors
        return None


def remember(folder: Path, content: str, asked: str, psf: PSF, tuning: Tuning) -> None:
    """Keep what was decided in the source's `folder`."""
    planes = np.ascontiguousarray(psf.planes, "<f4")
    decision = Decision(
        content=content, shape=planes.shape, kernels=planes.tobytes(), made_by=psf.made_by, tuning=tuning
    )
    write_durably(_file(folder, asked), msgspec.json.encode(decision))


def _file(folder: Path, asked: str) -> Path:
    return folder / "decisions" / f"{asked[:16]}.json"
