"""The recipe: everything that the result follows from, frozen before the first tile.

A tile is a pure function of (source, recipe, index).  The fingerprint is the SHA-256 of the recipe's
canonical JSON; jobs, memory, scheduler and paths are not in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import msgspec

from tilepipe.deconv.parameters import Parameters
from tilepipe.image.light import Curve, Light
from tilepipe.tiling.grid import Grid

__all__ = ["Recipe", "differences"]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Frozen numbers; every field changes the result.

    Parameters
    ----------
    algorithm : version of the solver's arithmetic.
    libraries : what the transforms come from, with version.
    source : SHA-256 of the input file.
    height, width, colours, extras, dtype : the source array.
    curves : transfer curves, (name, parameters, samples) a colour channel.
    unit, white, nodata, kinds : see :class:`tilepipe.image.light.Light`; `kinds` are its `extras`.
    psf : SHA-256 of the kernel; the kernel itself lies beside the recipe.
    noise : standard deviation, linear light 0..1, three digits.
    priority : -1 (cleaner) .. 1 (sharper).
    parameters : the solver and its numbers; "identity" for a PSF that changes nothing.
    luminance_only : only the luminance goes through the solver.
    core, halo : geometry, px.
    """

    algorithm: int
    libraries: str
    source: str
    height: int
    width: int
    colours: int
    extras: int
    dtype: str
    curves: tuple[tuple[str, tuple[float, ...] | None, tuple[float, ...] | None], ...]
    unit: float
    white: tuple[float, ...] | None
    nodata: str | None
    kinds: tuple[int, ...]
    psf: str
    noise: float
    priority: float
    parameters: Parameters
    luminance_only: bool
    core: int
    halo: int

    @property
    def solved(self) -> int:
        """Channels that go through the solver."""
        return 1 if self.luminance_only else self.colours

    @property
    def planes(self) -> int:
        """Planes of a tile and of the result: the colours, and the mask of a selective restoration."""
        return self.colours + bool(self.parameters.misfit_limit)

    @property
    def solver(self) -> str:
        """The solver's name."""
        return self.parameters.solver

    @property
    def grid(self) -> Grid:
        """The tiles."""
        return Grid(self.height, self.width, self.core, self.halo)

    @property
    def light(self) -> Light:
        """The transfer curves."""
        nodata = None if self.nodata is None else float(self.nodata)
        curves = tuple(Curve(*curve) for curve in self.curves)
        return Light(curves, self.dtype, self.unit, self.white, nodata, self.kinds)

    def to_json(self) -> bytes:
        """Return canonical JSON: keys sorted, the shortest digits that read back exactly."""
        return msgspec.json.encode(self, order="sorted")

    @classmethod
    def from_json(cls, data: bytes) -> Recipe:
        """Read what :meth:`to_json` wrote; msgspec.ValidationError when it is something else."""
        return msgspec.json.decode(data, type=cls)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        return hashlib.sha256(self.to_json()).hexdigest()


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return what changed from `old` to `new`, a phrase a field: ``noise 0.005 -> 0.02``."""
    before, after = _flat(old), _flat(new)
    phrases = []
    for name, value in after.items():
        if before[name] != value:
            long = isinstance(value, (tuple, list)) or name in ("psf", "source")
            phrases.append(f"{name} changed" if long else f"{name} {before[name]} -> {value}")
    return phrases


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Return the fields, the solver's numbers among them."""
    fields: dict[str, Any] = msgspec.structs.asdict(recipe)
    numbers: Parameters = fields.pop("parameters")
    return fields | {field.name: getattr(numbers, field.name) for field in dataclasses.fields(numbers)}
