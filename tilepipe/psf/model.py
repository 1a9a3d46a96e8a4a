"""The PSF as a validated value."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.dtypes import FloatArray
from tilepipe.errors import PsfError
from tilepipe.psf import files

__all__ = ["LARGEST_PSF", "PSF"]

LARGEST_PSF = 255
"""Largest accepted kernel size, px; beyond it the halo no longer fits into a tile."""

SUM_TOLERANCE = 1e-3
"""Largest deviation of a kernel's sum from 1 that is treated as rounding (the kernel is renormalised)."""


@dataclass(frozen=True, eq=False)
class PSF:
    """A blur kernel k in ``y = k * x`` (true convolution).

    Parameters
    ----------
    kernel : array, shape (k, k) or (c, k, k)
        One kernel, or one per channel; k odd, up to 255; finite, nonnegative, sum within 1e-3 of 1 (renormalised).
        Stored as read-only float32, shape (k, k); the mean if there are several.
    made_by : dict
        Provenance, JSON values only; stored in the file.

    Attributes
    ----------
    planes : ndarray of float32, shape (1, k, k) or (c, k, k)
        All kernels; read-only.

    Raises
    ------
    PsfError
        If the kernel violates one of these rules; the message reports which and by how much.
    """

    kernel: FloatArray
    made_by: dict[str, Any] = field(default_factory=dict)
    planes: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        planes = np.stack([_validated(plane) for plane in _planes(np.asarray(self.kernel))])
        kernel = planes[0] if len(planes) == 1 else planes.mean(0)
        for name, value in (("planes", planes), ("kernel", kernel)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    @property
    def joint(self) -> PSF:
        """PSF with one kernel for all channels: the mean if there are several."""
        return self if len(self.planes) == 1 else PSF(self.kernel, self.made_by)

    @property
    def size(self) -> int:
        """Size of the kernel, px."""
        return int(self.kernel.shape[0])

    @property
    def is_delta(self) -> bool:
        """Whether convolution is the identity: each kernel is nonzero only at its centre."""
        return int(np.count_nonzero(self.planes)) == int(np.count_nonzero(self._central_taps)) == len(self.planes)

    @property
    def components(self) -> tuple[PSF, ...]:
        """The PSF itself: it is the same all over the image, see :class:`tilepipe.psf.field.PSFField`."""
        return (self,)

    @property
    def widest(self) -> PSF:
        """The PSF itself; of a field, the widest component."""
        return self

    def weights(self, rows: range, columns: range, shape: tuple[int, int]) -> Iterator[tuple[int, FloatArray | None]]:
        """Yield 0 and None: the only component counts fully everywhere."""
        yield 0, None

    def at(self, y: int, x: int, shape: tuple[int, int]) -> PSF:
        """Return this PSF, which holds at every pixel (y, x) of an image of `shape` (h, w)."""
        return self

    @property
    def _central_taps(self) -> FloatArray:
        return self.planes[:, self.size // 2, self.size // 2]

    @property
    def confidence(self) -> float | None:
        """Confidence of the estimate, 0..1; None if the PSF was not estimated."""
        value = self.made_by.get("confidence")
        return float(value) if isinstance(value, (int, float)) else None

    @property
    def digest(self) -> str:
        """SHA-256 of the kernels' bytes, by which recipes identify the PSF."""
        return hashlib.sha256(np.ascontiguousarray(self.planes, "<f4").tobytes()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return a summary: size, number of planes, centroid and spread (px), peak, taps above 1/1000 of the peak."""
        offsets = np.arange(self.size) - self.size // 2
        kernel = self.kernel.astype(np.float64)
        x, y = float((kernel * offsets).sum()), float((kernel * offsets[:, None]).sum())
        return {
            "size": self.size,
            "planes": len(self.planes),
            "centroid": [round(x, 3), round(y, 3)],
            "spread": [
                round(float(np.sqrt((kernel * (offsets - x) ** 2).sum())), 3),
                round(float(np.sqrt((kernel * (offsets[:, None] - y) ** 2).sum())), 3),
            ],
            "peak": round(float(kernel.max()), 5),
            "taps": int((kernel > kernel.max() / 1000).sum()),
            "made_by": self.made_by,
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a 32-bit float TIFF, one page per kernel, with ``made_by`` as JSON in ImageDescription.

        Raises
        ------
        OutputExistsError
            If the file exists and `overwrite` is false.
        DoesNotFitError
            If the disk is full.
        OutputError
            If the file cannot be written for another reason.
        """
        files.write(path, self.to_bytes(), overwrite=overwrite)

    def to_bytes(self) -> bytes:
        """Return the content of the file that :meth:`save` writes."""
        return files.encode(self.planes, self.made_by)

    @classmethod
    def load(cls, path: str | Path) -> PSF:
        """Read a PSF from a gray TIFF with one page, or one page per channel.

        Integer values are treated as counts, as microscopy tools write them, and normalised; floats must sum to 1.

        Raises
        ------
        InputNotFoundError
            If the file does not exist.
        InputError
            If the file is not a gray TIFF.
        PsfError
            If a kernel violates the rules of `PSF`.
        """
        return cls.from_pages(*files.decode(Path(path), str(path)), str(path))

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> PSF:
        """Return the PSF with the file content `content`; messages call it `name`.  Errors as :meth:`load`."""
        return cls.from_pages(*files.decode(io.BytesIO(content), name), name)

    @classmethod
    def from_pages(cls, planes: list[npt.NDArray[Any]], made_by: dict[str, Any], path: str) -> PSF:
        """Return the PSF of the pages and facts of a file, see :mod:`tilepipe.psf.files`.  Errors as :meth:`load`."""
        if files.FIELD in made_by:
            raise PsfError(f"{path} holds a PSF that differs over the image; load it with tilepipe.load_psf")
        planes = [
            plane / max(1, int(plane.sum())) if np.issubdtype(plane.dtype, np.integer) else plane for plane in planes
        ]
        try:
            return cls(planes[0] if len(planes) == 1 else _stacked(planes), made_by)
        except PsfError as error:
            raise PsfError(f"{path}: {error}") from error


def _stacked(planes: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    shapes = sorted({plane.shape for plane in planes})
    if len(shapes) > 1:
        raise PsfError(f"its pages have shapes {shapes[0]} and {shapes[-1]}; all must be equal: pad the smaller ones")
    return np.stack(planes)


def _planes(kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the kernels as (p, k, k)."""
    planes = kernel if kernel.ndim == 3 else kernel[None]
    if planes.ndim != 3 or not len(planes) or planes.shape[1] != planes.shape[2]:
        raise PsfError(f"PSF has shape {kernel.shape}; it must be square, (k, k), or (c, k, k): pad it with zeros")
    return planes


def _validated(kernel: npt.NDArray[Any]) -> FloatArray:
    size = kernel.shape[0]
    if size % 2 == 0:
        raise PsfError(f"PSF is {size} x {size}; its size must be odd, so that it has a centre: pad it by one")
    if size > LARGEST_PSF:
        raise PsfError(
            f"PSF is {size} x {size}; the limit is {LARGEST_PSF}: crop its empty border or downscale the image"
        )
    values = kernel.astype(np.float64)
    if not np.isfinite(values).all():
        raise PsfError("PSF has NaN or infinite values; every value must be finite")
    if values.min() < 0:
        raise PsfError(f"PSF has negative values (smallest {values.min():.3g}); clip them at 0 and normalise")
    total = values.sum()
    if abs(total - 1) > SUM_TOLERANCE:
        raise PsfError(f"PSF sums to {total:.6g}; it must sum to 1 within {SUM_TOLERANCE:g}: divide it by its sum")
    return np.ascontiguousarray(values / total, np.float32)
