"""The recipe: everything that determines the result, fixed before the first tile.

A tile is a pure function of (source, recipe, index).  The fingerprint is the SHA-256 of the recipe's canonical JSON,
which does not contain jobs, memory, scheduler or paths.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import msgspec

from tilepipe.deconv.parameters import Parameters
from tilepipe.image.light import Curve, Light
from tilepipe.tiling.grid import Grid

__all__ = ["Recipe", "differences", "levels_from", "stored_levels"]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a restoration; every field affects the result.

    Parameters
    ----------
    algorithm : int
        Version of the solver's arithmetic.
    libraries : str
        Libraries that the result depends on, with versions.
    source : str
        SHA-256 of the input file; of another picture than its default one: that of both, see
        :meth:`tilepipe.image.selection.Selection.digest`.
    height : int
        Height of the image, px.
    width : int
        Width of the image, px.
    colours : int
        Number of colour channels.
    extras : int
        Number of extra channels.
    dtype : str
        Data type of the source array.
    curves : tuple of tuple
        Transfer curve of each colour channel: (name, parameters, samples).
    unit : float
        See :class:`tilepipe.image.light.Light`.
    white : tuple of float or None
        See :class:`tilepipe.image.light.Light`; None for a colour that is not clipped, because JSON has no infinity.
    nodata : str or None
        See :class:`tilepipe.image.light.Light`; a string, because JSON has no NaN.
    kinds : tuple of int
        ``extras`` of :class:`tilepipe.image.light.Light`.
    psf : str
        SHA-256 of the PSF, which is stored beside the recipe.
    noise : float
        Standard deviation of the noise, linear light 0..1, three digits.
    priority : float
        -1 (cleaner) .. 1 (sharper).
    parameters : Parameters
        The solver and its parameters; solver "identity" for a PSF without effect.
    luminance_only : bool
        Restore the luminance only.
    core : int
        Largest core edge of a tile, px.
    halo : int
        Width of the halo, px.
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
    white: tuple[float | None, ...] | None
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
        """Number of channels that are restored."""
        return 1 if self.luminance_only else self.colours

    @property
    def planes(self) -> int:
        """Number of planes of a tile and of the result: the colours, plus the mask of a selective restoration."""
        return self.colours + bool(self.parameters.misfit_limit)

    @property
    def solver(self) -> str:
        """Name of the solver."""
        return self.parameters.solver

    @property
    def grid(self) -> Grid:
        """The tile grid."""
        return Grid(self.height, self.width, self.core, self.halo)

    @property
    def light(self) -> Light:
        """The transfer curves."""
        nodata = None if self.nodata is None else float(self.nodata)
        curves = tuple(Curve(*curve) for curve in self.curves)
        return Light(curves, self.dtype, self.unit, levels_from(self.white), nodata, self.kinds)

    def to_json(self) -> bytes:
        """Return canonical JSON: sorted keys, shortest digits that round-trip exactly."""
        return msgspec.json.encode(self, order="sorted")

    @classmethod
    def from_json(cls, data: bytes) -> Recipe:
        """Read the output of :meth:`to_json`; msgspec.MsgspecError if `data` is anything else."""
        return msgspec.json.decode(data, type=cls)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        return hashlib.sha256(self.to_json()).hexdigest()


def stored_levels(levels: tuple[float, ...] | None) -> tuple[float | None, ...] | None:
    """Return clipping levels for JSON, with None for an infinite one."""
    return None if levels is None else tuple(None if math.isinf(level) else level for level in levels)


def levels_from(stored: tuple[float | None, ...] | None) -> tuple[float, ...] | None:
    """Return clipping levels read from JSON, in which an infinite one is null."""
    return None if stored is None else tuple(math.inf if level is None else level for level in stored)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return the fields that differ between `old` and `new`, one phrase per field: ``noise 0.005 -> 0.02``."""
    before, after = _flat_fields(old), _flat_fields(new)
    phrases = []
    for name, value in after.items():
        if before[name] != value:
            is_long = isinstance(value, (tuple, list)) or name in ("psf", "source")
            phrases.append(f"{name} changed" if is_long else f"{name} {before[name]} -> {value}")
    return phrases


def _flat_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of the recipe and of its solver parameters, in one dict."""
    fields: dict[str, Any] = msgspec.structs.asdict(recipe)
    parameters: Parameters = fields.pop("parameters")
    return fields | {field.name: getattr(parameters, field.name) for field in dataclasses.fields(parameters)}
