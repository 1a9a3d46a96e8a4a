"""What a zarr folder holds: which array is the picture, and what its axes and channels mean (OME-Zarr 0.1 to 0.5)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilepipe.errors import InputError
from tilepipe.image.light import ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA
from tilepipe.image.metadata.pixel_size import MICROMETRES, PixelSize
from tilepipe.image.zarr_folder import document

__all__ = [
    "ALPHA_LABELS",
    "COLOUR_LABELS",
    "MOST_CHANNELS",
    "RECORD_ATTRIBUTE",
    "ZarrPicture",
    "find_picture",
    "stated_record",
]

COLOUR_LABELS = {1: ("gray",), 3: ("red", "green", "blue")}
"""Labels of the colour channels that tilepipe writes, by their number."""

ALPHA_LABELS = {UNASSOCIATED_ALPHA: "alpha", ASSOCIATED_ALPHA: "premultiplied alpha"}
"""Labels of alpha channels that tilepipe writes, by their kind; any other channel is "extra"."""

OLD_AXES = ("t", "c", "z", "y", "x")
"""Axes of OME-Zarr 0.1 and 0.2, which do not state them."""

MOST_LEVELS = 64
"""Largest number of resolution levels that is looked at: each halves the size."""

MOST_CHANNELS = 4

RECORD_ATTRIBUTE = "tilepipe"
"""Attribute with the processing record."""


@dataclass(frozen=True)
class ZarrPicture:
    """The array of a zarr folder that is read as a picture.

    Parameters
    ----------
    key : str
        Path of the array inside the folder; empty if the folder is the array.
    array : dict
        The array's JSON document.
    axes : tuple of str
        Meaning of each axis: "y", "x", "c", or any other name for one of length 1.
    colours : int
        Number of colour channels, 1 or 3.
    extra_kinds : tuple of int
        TIFF ExtraSamples values of the further channels.
    pixel : (float, float), optional
        Size of a pixel, micrometres.
    lost : tuple of str
        What the folder contains and is not kept.
    is_ome : bool
        Whether it is an OME-Zarr, not a plain array.
    """

    key: str
    array: dict[str, Any]
    axes: tuple[str, ...]
    colours: int
    extra_kinds: tuple[int, ...] = ()
    pixel: PixelSize | None = None
    lost: tuple[str, ...] = ()
    is_ome: bool = False

    @property
    def zarr_format(self) -> int:
        """Version of the array's format, 2 or 3."""
        return int(self.array["zarr_format"])


def find_picture(root: Path) -> ZarrPicture:
    """Return the picture in the zarr folder `root`: its array, or the largest level of its first multiscale image.

    Raises
    ------
    InputError
        If there is none, or what there is has more than two dimensions and four channels.
    """
    array = _array(root, "")
    if array is not None:
        return _plain(root, array)
    key, lost = "", []
    attributes = _ome_attributes(root, key)
    if "bioformats2raw.layout" in attributes:
        key = "0"
        lost = ["the OME-XML"] + ["all but the first image"] * (_ome_attributes(root, "1") != {})
        attributes = _ome_attributes(root, key)
    if "plate" in attributes or "well" in attributes:
        raise InputError(f"{root} is a plate or a well of many images; give the folder of one of them")
    scales = attributes.get("multiscales")
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], dict):
        raise InputError(f"{root} is a zarr group without a multiscale image; give the folder of an array in it")
    if len(scales) > 1:
        lost.append(f"all but the first of {len(scales)} multiscale images")
    if _attributes(root, _join(key, "labels")) is not None:
        lost.append("labels")
    return _multiscale(root, key, scales[0], attributes.get("omero"), lost)


def stated_record(root: Path) -> str | None:
    """Return the processing record of the zarr folder `root`, JSON; None if it has none."""
    record = (_attributes(root, "") or {}).get(RECORD_ATTRIBUTE)
    return None if record is None else json.dumps(record)


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _array(root: Path, key: str) -> dict[str, Any] | None:
    """Return the JSON document of the array at `key`; None if there is no array."""
    found = document(root, _join(key, "zarr.json"))
    if found is not None:
        return {"zarr_format": 3} | found if found.get("node_type") == "array" else None
    found = document(root, _join(key, ".zarray"))
    return None if found is None else found | {"zarr_format": 2}


def _attributes(root: Path, key: str) -> dict[str, Any] | None:
    """Return the attributes of the group or array at `key`; None if there is neither."""
    found = document(root, _join(key, "zarr.json"))
    if found is None:
        marks = [document(root, _join(key, name)) for name in (".zgroup", ".zarray")]
        return None if marks == [None, None] else document(root, _join(key, ".zattrs")) or {}
    attributes = found.get("attributes", {})
    return attributes if isinstance(attributes, dict) else {}


def _ome_attributes(root: Path, key: str) -> dict[str, Any]:
    """Return the attributes of OME-Zarr: below "ome" since version 0.5, at the top before."""
    attributes = _attributes(root, key) or {}
    ome = attributes.get("ome")
    return ome if isinstance(ome, dict) else attributes


def _shape(root: Path, key: str, array: dict[str, Any]) -> tuple[int, ...]:
    shape = array.get("shape")
    if not isinstance(shape, list) or not all(type(length) is int and length > 0 for length in shape):
        raise InputError(f"{root} holds no picture: the shape of its array {key or '.'} is {_short(shape)}")
    return tuple(shape)


def _short(value: object) -> str:
    """Return a value of a JSON document for a message, of bounded length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _plain(root: Path, array: dict[str, Any]) -> ZarrPicture:
    """Return an array without OME metadata: axes by their names, else (y, x), (c, y, x) or (y, x, c)."""
    shape = _shape(root, "", array)
    names = array.get("dimension_names") or (_attributes(root, "") or {}).get("_ARRAY_DIMENSIONS")
    if isinstance(names, list) and len(names) == len(shape) and all(isinstance(name, str) for name in names):
        axes = tuple(name.lower() for name in names)
    else:
        axes = ()
    if axes.count("y") != 1 or axes.count("x") != 1 or axes.count("c") > 1:
        axes = {2: ("y", "x"), 3: ("y", "x", "c") if shape[-1] <= MOST_CHANNELS else ("c", "y", "x")}.get(
            len(shape), ()
        )
    if not axes:
        raise InputError(
            f"{root} is an array of shape {shape} without names of its axes; an image is (y, x) or (c, y, x)"
        )
    count = _channels(root, shape, axes)
    kinds = (UNASSOCIATED_ALPHA,) * (count in (2, 4))
    return ZarrPicture("", array, axes, count - len(kinds), kinds)


def _multiscale(root: Path, key: str, scale: dict[str, Any], omero: object, lost: list[str]) -> ZarrPicture:
    """Return the largest level of a multiscale image."""
    stated_levels = scale.get("datasets")
    levels = []
    for level in stated_levels[:MOST_LEVELS] if isinstance(stated_levels, list) else []:
        path = level.get("path") if isinstance(level, dict) else None
        if isinstance(path, str) and (array := _array(root, _join(key, path))) is not None:
            levels.append((math.prod(_shape(root, path, array)), path, array, level))
    if not levels:
        raise InputError(f"{root} is damaged: none of the arrays that its multiscale image names is there")
    _, path, array, level = max(levels, key=lambda one: one[0])
    shape = _shape(root, path, array)
    stated = scale.get("axes", list(OLD_AXES))
    axes = _axes(root, stated, len(shape))
    count = _channels(root, shape, axes)
    labels = _labels(omero, count)
    kinds = tuple({label: kind for kind, label in ALPHA_LABELS.items()}.get(label, 0) for label in labels)
    colours = 1 if count < 3 or labels[:1] == COLOUR_LABELS[1] else 3
    if labels and labels[:colours] != COLOUR_LABELS[colours]:
        lost.append("names and display settings of the channels")
    return ZarrPicture(
        _join(key, path),
        array,
        axes,
        colours,
        (kinds or (0,) * count)[colours:],
        _pixel(stated, axes, scale, level),
        tuple(lost),
        is_ome=True,
    )


def _axes(root: Path, stated: object, dimensions: int) -> tuple[str, ...]:
    """Return the meaning of each axis: by its type, and by its name among those of space (version 0.5, section 2.2)."""
    if not isinstance(stated, list) or len(stated) != dimensions:
        raise InputError(f"{root} is damaged: its array has {dimensions} dimensions, its axes are {_short(stated)}")
    named = [axis if isinstance(axis, dict) else {"name": axis} for axis in stated]
    names = [str(axis.get("name", "")).lower() for axis in named]
    types = [
        axis.get("type") or ("space" if name in ("x", "y", "z") else "")
        for axis, name in zip(named, names, strict=True)
    ]
    space = [index for index, kind in enumerate(types) if kind == "space"]
    roles = ["c" if kind == "channel" else name or "?" for name, kind in zip(names, types, strict=True)]
    if not {"y", "x"} <= {names[index] for index in space} and len(space) >= 2:
        for index, role in zip(space, ["z"] * (len(space) - 2) + ["y", "x"], strict=True):
            roles[index] = role
    if roles.count("y") != 1 or roles.count("x") != 1 or roles.count("c") > 1:
        raise InputError(f"{root} is no picture: its axes are {', '.join(map(str, names))}")
    return tuple(roles)


def _channels(root: Path, shape: tuple[int, ...], axes: tuple[str, ...]) -> int:
    """Return the number of channels; raises InputError if there are too many, or other axes."""
    sizes = dict(zip(axes, shape, strict=True))
    others = {axis: size for axis, size in zip(axes, shape, strict=True) if axis not in ("c", "y", "x") and size > 1}
    count = sizes.get("c", 1)
    if others or count > MOST_CHANNELS:
        found = ", ".join(f"{axis} = {size}" for axis, size in sizes.items())
        raise InputError(f"{root} is not one picture: {found}; at most {MOST_CHANNELS} channels of one plane are read")
    return count


def _labels(omero: object, count: int) -> tuple[str, ...]:
    """Return the names of the channels; empty if they are not stated for all."""
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or len(channels) != count or not all(isinstance(one, dict) for one in channels):
        return ()
    return tuple(str(one.get("label", "")).lower() for one in channels)


def _pixel(stated: Any, axes: tuple[str, ...], *transformed: Any) -> PixelSize | None:
    """Return the size of a pixel by the scales of the image and of its level; None without units of length."""
    lengths = []
    for role in ("y", "x"):
        index = axes.index(role)
        unit = stated[index].get("unit") if isinstance(stated[index], dict) else None
        length = MICROMETRES.get(unit, 0.0) if isinstance(unit, str) else 0.0
        for one in transformed:
            length *= _scale(one.get("coordinateTransformations"), index)
        lengths.append(length)
    return (lengths[0], lengths[1]) if all(0 < length < math.inf for length in lengths) else None


def _scale(transformations: object, index: int) -> float:
    """Return the product of the scales along an axis; 1 without any, 0 if one is not a number."""
    product = 1.0
    for one in transformations if isinstance(transformations, list) else []:
        if isinstance(one, dict) and one.get("type") == "scale":
            scale = one.get("scale")
            value = scale[index] if isinstance(scale, list) and index < len(scale) else 0.0
            product *= value if isinstance(value, (int, float)) else 0.0
    return product
