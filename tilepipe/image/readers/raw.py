"""Camera raw reader: LibRaw unpacks and demosaics; colours stay those of the sensor, in linear light.

LibRaw subtracts the black level, multiplies by the white balance and interpolates (its default, adaptive
homogeneity-directed).  Its noise reduction, automatic brightness, gamma and conversion of colours are off: in the
sensor's own colours no negative value is cut off, and each channel is clipped at a level that is known.  The profile
converts these colours by the camera's matrix.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tilepipe.errors import InputError, SettingsError
from tilepipe.image.info import ImageInfo
from tilepipe.image.light import LINEAR, Light
from tilepipe.image.metadata.blocks import ORIENTATION, Metadata, from_tiff_directory
from tilepipe.image.metadata.exif import Directory, Entry
from tilepipe.image.metadata.profiles import linear_profile, linear_profile_of
from tilepipe.image.readers.whole import WholeReader

__all__ = ["is_raw", "open_raw"]

STARTS = (b"FUJIFILM", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb")
"""First bytes of RAF, ORF, RW2, MRW and X3F."""

CFA, LINEAR_RAW = 32803, 34892
"""PhotometricInterpretation of a mosaic, and of samples that are demosaiced (TIFF/EP; DNG 1.7)."""

DNG_VERSION = 50706

ORIENTATIONS = {int("50132467"[number % 8]): number for number in range(1, 9)}
"""Value of the orientation's tag by LibRaw's ``flip``: 1 mirrors columns, 2 rows, 4 transposes."""

PIXEL_BYTES = 18
"""Memory for developing, bytes per pixel: four channels of 16 bits, the result, and what interpolation takes."""

SAMPLE_BYTES = {"Flat": 2, "Stack": 8}
"""Memory of an unpacked pixel, bytes, by LibRaw's layout: one sample, or up to four."""


@dataclass(frozen=True)
class _Sensor:
    """What LibRaw finds in the header of a raw file."""

    height: int
    width: int
    colours: int
    flip: int
    memory: int
    multipliers: tuple[float, ...]
    is_camera_balance: bool
    matrix: npt.NDArray[np.float64]


def is_raw(path: Path, start: bytes) -> bool:
    """Return whether the file at `path`, which begins with `start`, 16 bytes or more, is a camera's raw file."""
    if start.startswith(STARTS) or start[4:12] == b"ftypcrx ":
        return True
    if start[:4] not in (b"II*\0", b"MM\0*"):
        return False
    if start[8:10] == b"CR":  # CR2, whose first page is a preview
        return True
    try:
        with tifffile.TiffFile(path) as tiff:
            first = tiff.pages.first
            pages = [first, *(page.aspage() for page in first.pages or ())]
            return DNG_VERSION in first.tags or any(int(page.photometric) in (CFA, LINEAR_RAW) for page in pages)
    except Exception:  # on damaged files tifffile raises arbitrary exceptions; the TIFF reader reports them
        return False


def open_raw(path: Path) -> WholeReader:
    """Read the header of a camera's raw file.

    Raises
    ------
    InputError
        If the file is damaged or truncated, or LibRaw does not know its camera or colours.
    SettingsError
        If rawpy is not installed.
    """
    rawpy = _rawpy(path)
    with path.open("rb") as file:
        start = file.read(16)
    if start[:2] in (b"II", b"MM"):
        _check_extent(path)
    try:
        sensor = _sensor(rawpy, path)
    except rawpy.LibRawError as error:
        raise InputError(f"{path} is a raw file that LibRaw cannot read: {_message(error)}") from error
    if sensor.colours not in (1, 3):
        raise InputError(f"{path} has a sensor of {sensor.colours} colours; supported: 1 and 3; develop it first")
    profile, colours_note = _profile(sensor)
    balance = "the camera's white balance" if sensor.is_camera_balance else "daylight, as it states no white balance"
    top = max(sensor.multipliers)
    white = tuple(multiplier / top for multiplier in sensor.multipliers[: sensor.colours])
    info = ImageInfo(
        path=path,
        kind="camera raw",
        height=sensor.height,
        width=sensor.width,
        colours=sensor.colours,
        extras=0,
        dtype="uint16",
        layout="decoded whole",
        compression="raw",
        decoded_bytes=sensor.memory + path.stat().st_size,
        metadata=_metadata(path, start, ORIENTATIONS.get(sensor.flip, 1), profile),
        light=Light((LINEAR,) * sensor.colours, "uint16", white=white),
        curve_note="linear (camera raw)",
        notes=(f"developed by LibRaw {_version(rawpy)}: linear light in {colours_note}, {balance}",),
    )
    return WholeReader(info, partial(_developed, rawpy, sensor.multipliers))


def _rawpy(path: Path) -> ModuleType:
    try:
        import rawpy
    except ImportError as error:
        raise SettingsError(
            f"{path} is a camera's raw file, which needs rawpy ({error}): pip install 'tilepipe[raw]', or develop it "
            "to a 16-bit TIFF first"
        ) from error
    module: ModuleType = rawpy
    return module


def _version(rawpy: ModuleType) -> str:
    return ".".join(str(part) for part in rawpy.libraw_version)


def _check_extent(path: Path) -> None:
    """Raise InputError if data of a TIFF-like file lie beyond its end; LibRaw would write to stderr, too."""
    size, needed = path.stat().st_size, 0
    try:
        with tifffile.TiffFile(path) as tiff:
            first = tiff.pages.first
            for page in [first, *(page.aspage() for page in first.pages or ())]:
                ends = (at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=False) if count)
                needed = max(needed, *ends, 0)
    except Exception:  # not a TIFF for tifffile, as ORF and RW2
        return
    if needed > size:
        raise InputError(f"{path} is truncated: its pixel data ends at byte {needed}, the file at byte {size}")


def _sensor(rawpy: ModuleType, path: Path) -> _Sensor:
    with rawpy.RawPy() as raw:
        try:
            raw.open_file(str(path))
        except UnicodeEncodeError:  # a name that is not UTF-8
            raw.open_buffer(BytesIO(path.read_bytes()))
        sizes, balance = raw.sizes, tuple(float(part) for part in raw.camera_whitebalance)
        colours = int(raw.num_colors)
        is_camera_balance = colours == 1 or min(balance[:3]) > 0
        if not is_camera_balance:
            balance = tuple(float(part) for part in raw.daylight_whitebalance)
        if colours == 1 or min(balance[:3]) <= 0:
            balance = (1.0,) * 4
        if sizes.pixel_aspect != 1:
            raise InputError(
                f"{path} has pixels of aspect {sizes.pixel_aspect:g}; only square ones are supported; develop it first"
            )
        return _Sensor(
            height=int(sizes.height),
            width=int(sizes.width),
            colours=colours,
            flip=int(sizes.flip),
            memory=sizes.raw_height * sizes.raw_width * SAMPLE_BYTES.get(raw.raw_type.name, 8)
            + sizes.height * sizes.width * PIXEL_BYTES,
            multipliers=(*balance[:3], balance[3] or balance[1]),
            is_camera_balance=is_camera_balance,
            matrix=np.array(raw.color_matrix, np.float64)[:, :3],
        )


def _profile(sensor: _Sensor) -> tuple[bytes, str]:
    """Return the profile of the sensor's colours, and their name."""
    if sensor.colours == 1:
        return linear_profile(1), "gray"
    try:
        return linear_profile_of(sensor.matrix), "the sensor's colours"
    except ValueError:  # LibRaw has no matrix for the camera, and the file none
        return linear_profile(3), "the sensor's colours, which are not known and stated as sRGB's"


def _metadata(path: Path, start: bytes, orientation: int, profile: bytes) -> Metadata:
    """Return the tags of a file that is built like a TIFF, with the orientation as LibRaw reads it."""
    metadata = Metadata(lost=("EXIF",))
    if start[:2] in (b"II", b"MM"):
        order = "<" if start[:2] == b"II" else ">"
        with path.open("rb") as file:

            def read(at: int, size: int) -> bytes:
                file.seek(at)
                return file.read(size)

            metadata = from_tiff_directory(read, struct.unpack(order + "I", start[4:8])[0], order, big=False)
    entries = [entry for entry in metadata.tags.entries if entry.code != ORIENTATION]
    if orientation != 1 or len(entries) < len(metadata.tags.entries):
        entries.append(Entry(ORIENTATION, 3, 1, struct.pack("<H", orientation)))
    return replace(metadata, icc=profile, tags=Directory(tuple(entries)))


def _developed(rawpy: ModuleType, multipliers: tuple[float, ...], content: bytes) -> npt.NDArray[Any]:
    """Return the pixels as stored, not turned: uint16 (height, width, colours); 65535 is the largest multiplier."""
    try:
        with rawpy.RawPy() as raw:
            raw.open_buffer(BytesIO(content))
            raw.unpack()
            return np.asarray(
                raw.postprocess(
                    output_color=rawpy.ColorSpace.raw,
                    output_bps=16,
                    gamma=(1, 1),
                    no_auto_bright=True,
                    adjust_maximum_thr=0,  # the scale does not depend on the brightest pixel
                    highlight_mode=rawpy.HighlightMode.Ignore,
                    user_wb=list(multipliers),
                    user_flip=0,
                )
            )
    except rawpy.LibRawError as error:
        raise ValueError(_message(error)) from error


def _message(error: Exception) -> str:
    """Return a message of LibRaw, which rawpy passes on as bytes."""
    text = error.args[0] if error.args else ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
