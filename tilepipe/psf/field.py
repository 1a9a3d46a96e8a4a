r"""PSFs that differ over the image: kernels at places, and the weight of each at every pixel.

Between the places the restored image is interpolated, not the kernel: with weights w_i that add up to 1,

.. math:: x(p) = \sum_i w_i(p) R_i(y)(p)

where R_i restores the image y with kernel i.  Every R_i is the restoration with a uniform PSF, so what holds for these
holds for the sum: a tile needs the same halo, and there are no steps between tiles, because the weights depend on the
position in the image alone.  (Blending of uniformly restored images: Nagy & O'Leary, SIAM J. Sci. Comput. 19, 1998,
interpolate the kernels' images likewise.)
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tilepipe.dtypes import DoubleArray, FloatArray
from tilepipe.errors import PsfError
from tilepipe.psf import files
from tilepipe.psf.kernel_ops import fit_to
from tilepipe.psf.model import PSF

__all__ = ["AnyPSF", "Lattice", "PSFField", "Rings", "load_psf", "psf_from_bytes"]

Weighted = Iterator[tuple[int, FloatArray | None]]
"""Index of a component, and its weight at the pixels of a box, (h, w); None where it counts fully."""


@dataclass(frozen=True)
class Rings:
    """Kernels at distances from a centre, as of a lens, optionally at several angles.

    Parameters
    ----------
    radii : tuple of float
        Distances, rising, as shares of half the image's diagonal; constant inside the first and beyond the last.
    centre : tuple of float
        x and y as shares of the image's width and height.
    angles : int
        Number of directions, evenly over 180 degrees counter-clockwise from the right; opposite ones share a kernel.
        Component ``i * angles + j`` lies at radius i and direction j.
    """

    kind: ClassVar[str] = "lens"

    radii: tuple[float, ...]
    centre: tuple[float, float] = (0.5, 0.5)
    angles: int = 1

    def __post_init__(self) -> None:
        _check_rising("radii", self.radii)
        if not (len(self.centre) == 2 and all(map(math.isfinite, self.centre))):
            raise PsfError(f"the centre of the PSF field is {self.centre}; it must be two finite numbers")
        if self.angles < 1:
            raise PsfError(f"the PSF field has {self.angles} angles; there must be at least one")

    @property
    def count(self) -> int:
        """Number of components."""
        return len(self.radii) * self.angles

    def weights(self, rows: range, columns: range, shape: tuple[int, int]) -> Weighted:
        """Yield the components with a weight in a box, see :meth:`PSFField.weights`."""
        height, width = shape
        y = (np.asarray(rows) + 0.5 - self.centre[1] * height)[:, None]
        x = (np.asarray(columns) + 0.5 - self.centre[0] * width)[None, :]
        radius = np.sqrt(y * y + x * x) / (0.5 * math.hypot(height, width))
        across = np.interp(radius, self.radii, np.arange(len(self.radii))).astype(np.float32)
        del radius  # two planes; the others stay while a tile is restored
        around = (np.arctan2(-y, x) % np.pi * (self.angles / np.pi)).astype(np.float32) if self.angles > 1 else None
        for index in range(len(self.radii)):
            weight = _hat(across - np.float32(index))
            if not weight.any():
                continue
            if around is None:
                yield index, None if weight.min() == 1 else weight
                continue
            for angle in range(self.angles):
                distance = np.abs(around - np.float32(angle))
                both = weight * _hat(np.minimum(distance, np.float32(self.angles) - distance))
                if both.any():
                    yield index * self.angles + angle, both


@dataclass(frozen=True)
class Lattice:
    """Kernels on a rectangular lattice of places.

    Parameters
    ----------
    rows, columns : tuple of float
        Positions, rising, as shares of the image's height and width; constant beyond the outermost.
        Component ``i * len(columns) + j`` lies at row i and column j.
    """

    kind: ClassVar[str] = "grid"

    rows: tuple[float, ...]
    columns: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_rising("rows", self.rows)
        _check_rising("columns", self.columns)

    @property
    def count(self) -> int:
        """Number of components."""
        return len(self.rows) * len(self.columns)

    def weights(self, rows: range, columns: range, shape: tuple[int, int]) -> Weighted:
        """Yield the components with a weight in a box, see :meth:`PSFField.weights`."""
        down = _along(np.asarray(rows), shape[0], self.rows)
        across = _along(np.asarray(columns), shape[1], self.columns)
        for i in range(len(self.rows)):
            row = _hat(down - i)
            for j in range(len(self.columns)):
                column = _hat(across - j)
                if row.any() and column.any():
                    weight: FloatArray = row[:, None] * column[None, :]
                    yield i * len(self.columns) + j, None if weight.min() == 1 else weight


Places = Rings | Lattice


def _check_rising(name: str, values: Sequence[float]) -> None:
    if not values or not all(map(math.isfinite, values)) or any(a >= b for a, b in pairwise(values)):
        raise PsfError(f"the {name} of the PSF field are {list(values)}; they must be finite and rising")


def _along(pixels: DoubleArray, length: int, places: Sequence[float]) -> DoubleArray:
    """Return the positions of pixels along an axis of `length` px, in units of the index of `places`."""
    position: DoubleArray = np.interp((pixels + 0.5) / length, places, np.arange(len(places)))
    return position


def _hat(distance: DoubleArray | FloatArray) -> FloatArray:
    """Return weights that fall linearly from 1 to 0 at a distance of 1."""
    weight: FloatArray = np.maximum(0, 1 - np.abs(distance)).astype(np.float32)
    return weight


@dataclass(frozen=True, eq=False)
class PSFField:
    """A PSF that differs over the image.

    Parameters
    ----------
    components : tuple of PSF
        The PSF at each place; all with the same number of kernels.  Smaller ones are padded with zeros.
    places : Rings or Lattice
        Where they are.
    made_by : dict
        Provenance, JSON values only; stored in the file.

    Raises
    ------
    PsfError
        If the numbers of components and places differ, or the components have different numbers of kernels.
    """

    components: tuple[PSF, ...]
    places: Places
    made_by: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.components) != self.places.count:
            raise PsfError(f"the PSF field has {len(self.components)} kernels for {self.places.count} places")
        numbers = sorted({len(psf.planes) for psf in self.components})
        if len(numbers) > 1:
            raise PsfError(f"the PSF field has places with {numbers[0]} and with {numbers[-1]} kernels; all must agree")
        size = max(psf.size for psf in self.components)
        padded = tuple(
            psf if psf.size == size else PSF(np.stack([fit_to(plane, size) for plane in psf.planes]), psf.made_by)
            for psf in self.components
        )
        object.__setattr__(self, "components", padded)

    @property
    def size(self) -> int:
        """Size of the kernels, px."""
        return self.components[0].size

    @property
    def planes(self) -> FloatArray:
        """Kernels of the widest component, (1, k, k) or (c, k, k)."""
        return self.widest.planes

    @cached_property
    def widest(self) -> PSF:
        """The component with the largest spread: it needs the widest halo."""
        return max(self.components, key=lambda psf: math.hypot(*psf.facts()["spread"]))

    @property
    def joint(self) -> PSFField:
        """The field with one kernel for all channels at each place."""
        return PSFField(tuple(psf.joint for psf in self.components), self.places, self.made_by)

    @property
    def is_delta(self) -> bool:
        """Whether convolution is the identity everywhere."""
        return all(psf.is_delta for psf in self.components)

    @property
    def confidence(self) -> float | None:
        """Confidence of the estimate, 0..1; None if the field was not estimated."""
        value = self.made_by.get("confidence")
        return float(value) if isinstance(value, (int, float)) else None

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Height and width of the image that the field was estimated from, px; None if unknown."""
        image = self.made_by.get("image")
        return None if not isinstance(image, dict) else (int(image["height"]), int(image["width"]))

    @property
    def digest(self) -> str:
        """SHA-256 of the kernels' bytes and their places, by which recipes identify the field."""
        digest = hashlib.sha256(json.dumps(self._described(), sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self._stacked(), "<f4").tobytes())
        return digest.hexdigest()

    def weights(self, rows: range, columns: range, shape: tuple[int, int]) -> Weighted:
        """Yield the components that count in a box of the image.

        Parameters
        ----------
        rows, columns : range
            The box, px.
        shape : tuple of int
            Height and width of the image, px.

        Yields
        ------
        index : int
            Index of the component.
        weight : ndarray of float32, shape (h, w), or None
            Its weight at each pixel of the box; None if it is 1 throughout.  The weights add up to 1 within rounding.
        """
        return self.places.weights(rows, columns, shape)

    def at(self, y: int, x: int, shape: tuple[int, int]) -> PSF:
        """Return the PSF at a pixel of an image of `shape` (h, w): the weighted mean of the components."""
        kernels = np.zeros(self.components[0].planes.shape)
        for index, weight in self.weights(range(y, y + 1), range(x, x + 1), shape):
            kernels += self.components[index].planes * (1.0 if weight is None else float(weight[0, 0]))
        return PSF(kernels.astype(np.float32), self.made_by)

    def facts(self) -> dict[str, Any]:
        """Return a summary: kind, size, number of kernels of a place, places, and smallest and largest spread (px)."""
        spreads = [float(np.mean(psf.facts()["spread"])) for psf in self.components]
        return {
            "field": self._described(),
            "size": self.size,
            "planes": len(self.components[0].planes),
            "spread": [round(min(spreads), 3), round(max(spreads), 3)],
            "made_by": self.made_by,
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the field as :meth:`tilepipe.psf.model.PSF.save` does a PSF, all kernels of a place in sequence."""
        files.write(path, self.to_bytes(), overwrite=overwrite)

    def to_bytes(self) -> bytes:
        """Return the content of the file that :meth:`save` writes."""
        return files.encode(self._stacked(), self.made_by | {files.FIELD: self._described()})

    def _stacked(self) -> FloatArray:
        return np.concatenate([psf.planes for psf in self.components])

    def _described(self) -> dict[str, Any]:
        return {"kind": self.places.kind} | asdict(self.places)


AnyPSF = PSF | PSFField


def load_psf(path: str | Path) -> AnyPSF:
    """Read a PSF, or a PSF that differs over the image, from a file; errors as :meth:`tilepipe.psf.model.PSF.load`."""
    return _from_pages(*files.decode(Path(path), str(path)), str(path))


def psf_from_bytes(content: bytes, name: str) -> AnyPSF:
    """Return what a file with the content `content` holds; messages call it `name`.  Errors as :func:`load_psf`."""
    return _from_pages(*files.decode(io.BytesIO(content), name), name)


def _from_pages(planes: list[npt.NDArray[Any]], facts: dict[str, Any], name: str) -> AnyPSF:
    if files.FIELD not in facts:
        return PSF.from_pages(planes, facts, name)
    described = facts.pop(files.FIELD)
    try:
        places = _places(described)
        count = len(planes) // places.count
        if not count or count * places.count != len(planes):
            raise PsfError(f"it has {len(planes)} kernels for {places.count} places")
        groups = (np.stack(planes[start : start + count]) for start in range(0, len(planes), count))
        return PSFField(tuple(PSF(group) for group in groups), places, facts)
    except (PsfError, TypeError, ValueError, KeyError) as error:
        raise PsfError(f"{name} is not a valid PSF field: {error}") from error


def _places(described: dict[str, Any]) -> Places:
    """Return the places that a file describes."""
    kind = described["kind"]
    if kind == Rings.kind:
        x, y = map(float, described["centre"])
        return Rings(tuple(map(float, described["radii"])), (x, y), int(described["angles"]))
    if kind == Lattice.kind:
        return Lattice(tuple(map(float, described["rows"])), tuple(map(float, described["columns"])))
    raise PsfError(f"it is of the kind {kind!r}; known are {Rings.kind} and {Lattice.kind}")
