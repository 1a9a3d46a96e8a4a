"""Settings: one frozen value, merged from defaults, files, environment, ``--set`` and flags.

Later layers override earlier ones: defaults < ``tilepipe.toml`` < ``--config`` < environment (``TILEPIPE_MEMORY`` ...)
< ``--set key=value`` < flags and keywords.  An unknown key is an error; the message suggests the nearest known key.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from tilepipe.errors import InputNotFoundError, SettingsError
from tilepipe.units import parse_bytes

__all__ = ["PRIORITIES", "EffectiveSettings", "Settings", "parse_priority", "resolve"]

PROJECT_FILE = "tilepipe.toml"
"""Settings file in the working directory."""

EXPLICIT = ("cache", "save_mask", "scheduler")
"""Settings that ``tilepipe.toml`` in the working directory cannot give, because it may have come with the images: where
files are written, and which machine receives work.  A file given with ``--config`` can."""

ENVIRONMENT_PREFIX = "TILEPIPE_"
"""Prefix of the environment variables."""

PRIORITIES = {"denoise": -1.0, "balanced": 0.0, "deblur": 1.0}
"""Named values of the priority, -1 (cleaner) .. 1 (sharper)."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a run.

    Attributes
    ----------
    psf : str or None
        PSF file; None estimates the PSF from the image.
    blur : int or None
        Width of the blur to search for, px, odd, 3..101; None estimates it.
    window : str or None
        Window in which the blur is estimated, "X,Y" or "X,Y,SIZE" (centre and edge, px); None chooses.
    field : str
        "auto", "none" or "lens": whether the estimated blur may grow towards the corners; "auto" decides from parts of
        the image that are not used in the fit.
    psf_per_channel : bool
        Refine the estimated PSF for each colour channel.
    force : bool
        Accept any estimated PSF, however uncertain, and start even if the disk may be too small.
    priority : float or str
        -1 (cleaner) .. 1 (sharper), or "denoise", "balanced", "deblur".
    quality : str
        "fast", "normal" or "best": more iterations, better image.
    solver : str
        "tv", "sparse", "log" or "richardson-lucy".
    tolerance : float
        More tolerance gives more sharpness: it scales how long the iterations run, 0.25..4.  More is slower.
    mask : str or None
        Image file of the same size: white is restored, black is left unchanged.
    refocus : bool
        Restore only regions that are blurred by the PSF; sharp regions are unchanged.
    save_mask : str or None
        TIFF file to which the mask is written.
    luminance_only : bool
        Restore the luminance and leave colour differences unchanged.
    tile : int or None
        Largest core edge of a tile, px, at least 64; None chooses.
    halo : int or None
        Context around a tile, px; None derives it from the PSF, the noise and the image.
    target : float or None
        Standard deviation of the Gaussian that remains of a slight blur, px; None means 0.35.
    input_curve : str or None
        Transfer curve: "linear", "srgb", "gamma:EXPONENT" or the file of an ICC profile; None reads it from the image.
    white : str, float or None
        Sample value from which samples are clipped, "16383", or one per colour channel, "15000,16383,14800"; None
        detects it.
    nodata : float or None
        Sample value of pixels that are not part of the image; None reads it from the file.
    page : int or None
        Page of a TIFF, counted from 0 along its chain of pages, thumbnails and masks included; None: the largest.
    plane : str or None
        Plane of a stack (OME-TIFF, ImageJ), by the position along its axes, counted from 0: "z=3,c=1"; None: the first.
    salvage : bool
        Restore a truncated TIFF, PNG or JPEG as far as it goes; what is missing is masked.
    format : str or None
        Format of the output, "tiff", "jpeg", "png", "jxl", "webp", "npy", "fits" or "ome-zarr"; None: that of its
        extension.
    dtype : str or None
        Sample type of the output, "uint8", "uint16", "float16" or "float32"; None keeps that of the input.
    compression : str or None
        Compression of a TIFF, "none", "deflate", "lzw" or "zstd"; None keeps that of the input if it is lossless.
    dither : bool
        Restored samples of more than 8 bits are dithered, not rounded, when the output has 8.
    sidecar : bool
        Copy the XMP sidecars of the image, for the output.
    max_pixels : int
        Largest image that is decoded, px.
    memory : str, int or None
        Memory limit of the process (of each worker on a cluster), "512MB"; "auto" or None: half of the free memory.
    jobs : int or None
        Tiles in flight; None: as many as cores and memory allow.
    scheduler : str
        "threads", or a dask scheduler: "tcp://host:port", "tls://host:port" or "file:PATH".
    cache : str or None
        Cache folder, or address in an object store (``s3://BUCKET/NAME``); None: the user's cache folder.
    keep_cache : bool
        Keep the run's cache after it is complete.
    keep_tiles : bool or None
        Keep the tiles in the cache after they were blended; None: unless the image has more than 200 megapixels.  An
        edited image reuses the tiles of the run before if they were kept.
    cache_limit : str, int or None
        Size to which the cache is reduced after a run, "20GB", by removing complete runs, least recently used first;
        None: no limit.
    verify : str
        "full" hashes reused data; "quick" compares only their size (for the input: device, inode, size and times).
    durable : bool
        Flush every finished piece to disk.  Otherwise a power failure loses more work; a killed process does not.
    max_failures : int or None
        Number of failed tiles above which the run stops; None runs to completion and then reports them.
    """

    psf: str | None = None
    blur: int | None = None
    window: str | None = None
    field: Literal["auto", "none", "lens"] = "auto"
    psf_per_channel: bool = False
    force: bool = False
    priority: float | str = "balanced"
    quality: Literal["fast", "normal", "best"] = "normal"
    solver: Literal["tv", "sparse", "log", "richardson-lucy"] = "tv"
    tolerance: float = 1.0
    mask: str | None = None
    refocus: bool = False
    save_mask: str | None = None
    luminance_only: bool = False
    tile: int | None = None
    halo: int | None = None
    target: float | None = None
    input_curve: str | None = None
    white: str | float | None = None
    nodata: float | None = None
    page: int | None = None
    plane: str | None = None
    salvage: bool = False
    format: Literal["tiff", "jpeg", "png", "jxl", "webp", "npy", "fits", "ome-zarr"] | None = None
    dtype: Literal["uint8", "uint16", "float16", "float32"] | None = None
    compression: Literal["none", "deflate", "lzw", "zstd"] | None = None
    dither: bool = True
    sidecar: bool = False
    max_pixels: int = 4_000_000_000
    memory: str | int | None = None
    jobs: int | None = None
    scheduler: str = "threads"
    cache: str | None = None
    keep_cache: bool = True
    keep_tiles: bool | None = None
    cache_limit: str | int | None = None
    verify: Literal["full", "quick"] = "full"
    durable: bool = True
    max_failures: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges; raise SettingsError with the value, the limit and the way out."""
        parse_priority(self.priority)
        if self.blur is not None and not (3 <= self.blur <= 101 and self.blur % 2 == 1):
            raise SettingsError(f"blur is {self.blur} px; it must be odd, in 3..101: omit it to estimate it")
        if not 0.25 <= self.tolerance <= 4:
            raise SettingsError(
                f"tolerance is {self.tolerance:g}; it must lie in 0.25 (fewer iterations) .. 4 (more, sharper)"
            )
        if self.target is not None and not 0 <= self.target <= 2:
            raise SettingsError(f"target is {self.target:g} px; it must lie in 0 (no blur) .. 2: the default is 0.35")
        if self.tile is not None and self.tile < 64:
            raise SettingsError(f"tile is {self.tile} px; the smallest is 64: smaller tiles are all halo")
        if self.halo is not None and not 0 <= self.halo <= 1024:
            raise SettingsError(f"halo is {self.halo} px; it must lie in 0..1024: omit it to derive it from the image")
        if self.max_pixels < 1:
            raise SettingsError(f"max_pixels is {self.max_pixels}; it must be at least 1")
        if self.jobs is not None and self.jobs < 1:
            raise SettingsError(f"jobs is {self.jobs}; at least 1 tile must be in flight")
        if self.memory is not None and self.memory != "auto":
            parse_bytes(self.memory)
        if self.cache_limit is not None:
            parse_bytes(self.cache_limit, "cache_limit")
        if self.max_failures is not None and self.max_failures < 0:
            raise SettingsError(f"max_failures is {self.max_failures}; it must be at least 0 (stop at the first)")
        if not re.fullmatch(r"threads|(tcp|tls|inproc)://.+|file:.+", self.scheduler):
            raise SettingsError(
                f"scheduler is {self.scheduler!r}; it must be threads, tcp://HOST:PORT, tls://HOST:PORT or file:PATH"
            )

    @property
    def priority_value(self) -> float:
        """The priority as a number."""
        return parse_priority(self.priority)

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes; None if automatic."""
        return None if self.memory in (None, "auto") else parse_bytes(str(self.memory))


@dataclass(frozen=True)
class EffectiveSettings:
    """Settings and the origin of each value.

    Parameters
    ----------
    settings : Settings
        The merged settings.
    origins : dict of str to str
        The layer that set each key.
    ignored : tuple of str
        Keys of ``tilepipe.toml`` in the working directory that were ignored, see :data:`EXPLICIT`.
    """

    settings: Settings
    origins: dict[str, str]
    ignored: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Message about the keys that were ignored; empty if there are none."""
        if not self.ignored:
            return ""
        return (
            f"ignored  {', '.join(self.ignored)} in {PROJECT_FILE}: settings found in the working directory may not "
            f"choose where files are written or which machine computes; --config {PROJECT_FILE} accepts them"
        )


def resolve(
    flags: Mapping[str, Any] | None = None, sets: Iterable[str] = (), config: str | Path | None = None
) -> EffectiveSettings:
    """Merge all layers.

    Parameters
    ----------
    flags : mapping or None
        Values of flags or keywords; None means not given.
    sets : iterable of str
        "key=value" strings.
    config : str, Path or None
        A TOML file.

    Returns
    -------
    EffectiveSettings
        The merged settings.

    Raises
    ------
    SettingsError
        If a key is unknown, or a value is of the wrong type or out of range, in any layer.
    InputNotFoundError
        If `config` does not exist.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    ignored: tuple[str, ...] = ()
    if Path(PROJECT_FILE).is_file():
        found = _read_toml(Path(PROJECT_FILE))
        if config is None or not Path(config).samefile(PROJECT_FILE):
            ignored = tuple(key for key in found if key in EXPLICIT)
        layers.append((PROJECT_FILE, {key: value for key, value in found.items() if key not in EXPLICIT}))
    if config is not None:
        layers.append((str(config), _read_toml(Path(config))))
    layers.append(("environment", _from_environment()))
    layers.append(("--set", dict(_split_assignment(item) for item in sets)))
    layers.append(("flag", {key: value for key, value in (flags or {}).items() if value is not None}))
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.__struct_fields__, "default")
    for origin, values in layers:
        for key, value in values.items():
            _check_known(key, origin)
            _convert({key: value}, origin)
            merged[key] = value
            origins[key] = origin
    return EffectiveSettings(_convert(merged, "settings"), origins, ignored)


def _convert(values: dict[str, Any], origin: str) -> Settings:
    """Return `values` as settings; SettingsError names the layer `origin`."""
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, SettingsError):
            raise SettingsError(f"{origin}: {error.__cause__}") from None
        key, value = next(iter(values.items()), ("", ""))
        raise SettingsError(f"{origin}: {key} = {value!r}: {error}") from None


def _check_known(key: str, origin: str) -> None:
    """Raise SettingsError if `key` is not a setting."""
    known = Settings.__struct_fields__
    if key not in known:
        near = difflib.get_close_matches(key, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known settings are {', '.join(known)}"
        raise SettingsError(f"{origin}: unknown setting {key!r}; {hint}")


def _read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputNotFoundError(f"configuration {path} does not exist") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def _from_environment() -> dict[str, Any]:
    """Return the settings given by non-empty environment variables."""
    names = ((name, f"{ENVIRONMENT_PREFIX}{name.upper()}") for name in Settings.__struct_fields__)
    return {name: os.environ[variable] for name, variable in names if os.environ.get(variable)}


def _split_assignment(item: str) -> tuple[str, str]:
    """Split "key=value"; dashes in the key become underscores."""
    key, separator, value = item.partition("=")
    if not separator:
        raise SettingsError(f"--set {item!r} has no '='; write key=value, as in --set tile=512")
    return key.strip().replace("-", "_"), value.strip()


def parse_priority(value: float | str) -> float:
    """Return the priority as a number in -1..1; raise SettingsError for anything else."""
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    try:
        number = float(value)
    except ValueError:
        raise SettingsError(f"priority is {value!r}; it must be {', '.join(PRIORITIES)} or a number in -1..1") from None
    if not -1 <= number <= 1:
        raise SettingsError(f"priority is {number:g}; it must lie in -1 (denoise) .. 1 (deblur)")
    return number
