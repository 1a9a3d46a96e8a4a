"""Output formats: what each holds, what writing takes, and its writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tilepipe.errors import SettingsError
from tilepipe.image.colour_space import ColourSpace
from tilepipe.image.info import ImageInfo
from tilepipe.image.light import UNASSOCIATED_ALPHA, Light
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.writers import fits, jpeg, jpegxl, npy, omezarr, png, webp
from tilepipe.image.writers.output import BLOCK_ROWS, Output, output_bytes, output_light
from tilepipe.image.writers.tiff import write_tiff

__all__ = ["FORMATS", "OutputFormat", "format_of", "is_folder_name", "output_beside", "stem_of", "suffix_for"]


@dataclass(frozen=True)
class OutputFormat:
    """A format that can be written.

    Parameters
    ----------
    name : str
        Display name.
    suffixes : tuple of str
        File extensions, the usual one first.
    dtypes : tuple of str
        Sample types that it holds; the last is used for a type that it does not hold.
    write : callable
        ``write(path, output)`` creates the file.
    missing : callable
        ``missing(info)`` returns what a picture has that the format does not hold, as text; empty if nothing.
    lost : callable
        ``lost(metadata)`` returns the names of the blocks that are not written.
    light : callable
        ``light(info, dtype)`` returns the interpretation of the output's samples.
    is_linear : bool
        Whether samples are linear light by definition; pictures with other curves become the last of `dtypes`.
    held : callable
        ``held(info, dtype)`` returns the memory that writing takes beside the blocks, bytes.
    size : callable
        ``size(info, dtype)`` returns the size of the output's uncompressed pixels, bytes.
    is_folder : bool
        Whether an output is a folder, not a file.
    holds_profile : bool
        Whether an ICC profile has a place.  Without one, floats are read as linear light.
    holds_spaces : bool
        Whether it holds CMYK and Lab.
    """

    name: str
    suffixes: tuple[str, ...]
    dtypes: tuple[str, ...]
    write: Callable[[Path, Output], None]
    missing: Callable[[ImageInfo], str] = lambda info: ""
    lost: Callable[[Metadata], list[str]] = lambda metadata: []
    held: Callable[[ImageInfo, str], int] = lambda info, dtype: 0
    light: Callable[[ImageInfo, str], Light] = output_light
    is_linear: bool = False
    size: Callable[[ImageInfo, str], int] = output_bytes
    is_folder: bool = False
    holds_profile: bool = True
    holds_spaces: bool = False

    def space_for(self, info: ImageInfo, dtype: str) -> ColourSpace | None:
        """Return the input's CMYK or Lab if an output of `dtype` has it too; None for gray and RGB."""
        is_kept = self.holds_spaces and info.space is not None and info.space.dtype == dtype
        return info.space if is_kept else None

    def dtype_for(self, info: ImageInfo, wanted: str | None) -> str:
        """Return the sample type to write: `wanted`, that of the input, or the nearest that the format holds.

        Raises
        ------
        SettingsError
            If the format does not hold `wanted`, or the picture's size or channels.
        """
        if wanted is not None and wanted not in self.dtypes:
            raise SettingsError(
                f"--dtype {wanted}: {self.name} holds {' and '.join(self.dtypes)}; choose one, or another format"
            )
        own = info.space.dtype if info.space is not None and self.holds_spaces else info.dtype
        is_held = own in self.dtypes and not self.changes_curve(info)
        dtype = wanted or (own if is_held else self.dtypes[-1])
        reason = self.missing(info)
        if not self.holds_profile and dtype.startswith("float") and not info.light.is_linear:
            reason = f"as {dtype} it would need an ICC profile, which has no place"
        if reason:
            raise SettingsError(f"{info.path} cannot be written as {self.name}: {reason}; write a TIFF (.tif)")
        return dtype

    def changes_curve(self, info: ImageInfo) -> bool:
        """Return whether samples are converted to linear light."""
        return self.is_linear and not info.light.is_linear


def _missing_in_jpeg(info: ImageInfo) -> str:
    if max(info.height, info.width) > jpeg.LONGEST_SIDE:
        return f"it is {info.width} x {info.height} px, and {jpeg.LONGEST_SIDE} px is the largest side"
    return "it has no place for alpha, a mask or further channels" if info.required_kinds else ""


def _missing_but_alpha(info: ImageInfo) -> str:
    if info.required_kinds not in ((), (UNASSOCIATED_ALPHA,)):
        return "one straight alpha channel is all that it holds beside the colours"
    return ""


def _missing_in_jpegxl(info: ImageInfo) -> str:
    if find_spec("pyjpegxl") is None:
        return "that needs pyjpegxl (pip install 'tilepipe[jxl]')"
    return _missing_but_alpha(info)


def _missing_in_webp(info: ImageInfo) -> str:
    if max(info.height, info.width) > webp.LONGEST_SIDE:
        return f"it is {info.width} x {info.height} px, and {webp.LONGEST_SIDE} px is the largest side"
    return _missing_but_alpha(info)


TIFF = OutputFormat(
    "TIFF",
    (".tif", ".tiff"),
    ("uint8", "uint16", "float16", "float32"),
    write_tiff,
    lost=lambda metadata: metadata.fits_only,
    holds_spaces=True,
)

JPEG = OutputFormat(
    "JPEG",
    (".jpg", ".jpeg"),
    ("uint8",),
    jpeg.write_jpeg,
    _missing_in_jpeg,
    jpeg.metadata_lost,
    lambda info, dtype: jpeg.encoding_bytes(info.height * info.width, info.colours),
)

PNG = OutputFormat(
    "PNG",
    (".png",),
    ("uint8", "uint16"),
    png.write_png,
    _missing_but_alpha,
    png.metadata_lost,
    lambda info, dtype: png.band_bytes(info, dtype, BLOCK_ROWS),
)

JPEG_XL = OutputFormat(
    "JPEG XL",
    (".jxl",),
    ("uint8", "uint16"),
    jpegxl.write_jpegxl,
    _missing_in_jpegxl,
    jpegxl.metadata_lost,
    jpegxl.encoding_bytes,
)

WEBP = OutputFormat(
    "WebP",
    (".webp",),
    ("uint8",),
    webp.write_webp,
    _missing_in_webp,
    webp.metadata_lost,
    lambda info, dtype: webp.encoding_bytes(info.height * info.width),
)

NPY = OutputFormat(
    ".npy",
    (".npy",),
    ("uint8", "uint16", "float16", "float32"),
    npy.write_npy,
    _missing_but_alpha,
    npy.metadata_lost,
    holds_profile=False,
)

FITS = OutputFormat(
    "FITS",
    (".fits", ".fit"),
    ("uint8", "uint16", "float32"),
    fits.write_fits,
    fits.missing_channels,
    fits.metadata_lost,
    fits.block_bytes,
    fits.linear_light,
    is_linear=True,
)

OME_ZARR = OutputFormat(
    "OME-Zarr",
    (".zarr",),
    ("uint8", "uint16", "float16", "float32"),
    omezarr.write_omezarr,
    omezarr.missing_channels,
    omezarr.metadata_lost,
    omezarr.window_bytes,
    size=omezarr.pyramid_bytes,
    is_folder=True,
    holds_profile=False,
)

FORMATS = {
    "tiff": TIFF,
    "jpeg": JPEG,
    "png": PNG,
    "jxl": JPEG_XL,
    "webp": WEBP,
    "npy": NPY,
    "fits": FITS,
    "ome-zarr": OME_ZARR,
}
"""Formats by the value of ``--format``."""

DOUBLE_SUFFIX = ".ome.zarr"
"""Extension of two parts, of which the first belongs to no picture's name."""


def format_of(path: Path | None, name: str | None = None) -> OutputFormat:
    """Return the format called `name`, by default the one of the extension of `path`; TIFF without a path.

    Raises
    ------
    SettingsError
        If the extension is not that of a format which can be written.
    """
    if name is not None:
        return FORMATS[name]
    if path is None:
        return TIFF
    for candidate in FORMATS.values():
        if path.suffix.lower() in candidate.suffixes:
            return candidate
    known = ", ".join(suffix for candidate in FORMATS.values() for suffix in candidate.suffixes)
    raise SettingsError(f"output {path} must end in one of {known}, or give --format {'|'.join(FORMATS)}")


def is_folder_name(path: Path, name: str | None = None) -> bool:
    """Return whether an output `path`, in the format `name` or that of its extension, is a folder."""
    try:
        return format_of(path, name).is_folder
    except SettingsError:
        return False


def output_beside(image: Path, name: str | None) -> Path:
    """Return ``NAME-sharp.EXT`` beside `image`, in its format if that can be written, or in the format `name`."""
    return image.with_name(f"{stem_of(image)}-sharp{suffix_for(image, name)}")


def stem_of(image: Path) -> str:
    """Return the name of `image` without its extension; ``.ome.zarr`` is one."""
    return image.name[: -len(DOUBLE_SUFFIX)] if _is_double(image) else image.stem


def _is_double(image: Path) -> bool:
    return image.name.lower().endswith(DOUBLE_SUFFIX) and len(image.name) > len(DOUBLE_SUFFIX)


def suffix_for(image: Path, name: str | None) -> str:
    """Return the extension of an output whose name is not given: that of `image` if its format can be written."""
    if name is not None:
        return FORMATS[name].suffixes[0]
    writable = any(image.suffix.lower() in candidate.suffixes for candidate in FORMATS.values())
    suffix = image.name[-len(DOUBLE_SUFFIX) :] if _is_double(image) else image.suffix
    return suffix if writable else TIFF.suffixes[0]
