"""Settings: one frozen value, parsed from defaults, files, environment, ``--set`` and flags.

Later layers win: defaults < ``tilepipe.toml`` < ``--config`` < environment (``TILEPIPE_MEMORY`` ...) <
``--set key=value`` < flags and keywords.  Unknown keys are errors and name the nearest known one.
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
ENVIRONMENT_PREFIX = "TILEPIPE_"

PRIORITIES = {"denoise": -1.0, "balanced": 0.0, "deblur": 1.0}
"""Names for the ends and the middle of the priority, -1 (cleaner) .. 1 (sharper)."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user may set.

    Parameters
    ----------
    psf : PSF file; None finds the blur.
    blur : width of the blur that is looked for, px, odd, 3..101; None finds it.
    window : where to look for it, "X,Y" or "X,Y,SIZE" (centre, px); None chooses.
    psf_per_channel : refine the PSF found for each colour.
    force : take an estimated PSF however uncertain it is, and begin though the disk may not suffice.
    priority : -1..1, or "denoise", "balanced", "deblur".
    quality : "fast", "normal" or "best": more steps, a better picture.
    solver : "tv", "sparse", "log" or "richardson-lucy".
    tolerance : how long the steps go on, 0.25..4: more is sharper and slower.
    mask : picture of the same size: white is restored, black left alone.
    refocus : restore only where the blur is the one that was found.
    save_mask : TIFF to write the mask to.
    luminance_only : restore the luminance and leave colour differences as they are.
    tile : largest core edge, px, at least 64; None chooses.
    halo : context round a tile, px; None takes what the PSF, the noise and the picture need.
    target : standard deviation of the Gaussian that is left of a slight blur, px; None: 0.35.
    input_curve : how samples follow from light: "linear", "srgb", "gamma:EXPONENT" or an ICC profile's file; None: as
        the file says.
    white : sample value from which samples are clipped, "16383", or one for each colour, "15000,16383,14800"; None
        finds it.
    nodata : sample value of pixels that are not part of the picture; None: as the file says.
    dtype : samples of the output; None keeps the input's.
    memory : budget of the whole process (of each worker on a cluster), "512MB"; "auto" or None: half of what is free.
    jobs : tiles in flight; None: as many as cores and memory allow.
    scheduler : "threads", "tcp://host:port" or "file:PATH".
    cache : cache folder; None: the user's.
    keep_cache : keep the cache after a complete run.
    cache_limit : size that the cache is brought back to after a run, "20GB": complete runs go, least recently used
        first; None: no limit.
    verify : "full" hashes what is reused, "quick" trusts its size (of the input: size and times).
    durable : flush every finished piece to the disk; without it only a power failure costs more.
    max_failures : tiles that may fail before the run stops; None: it goes on and reports them in the end.
    """

    psf: str | None = None
    blur: int | None = None
    window: str | None = None
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
    dtype: Literal["uint8", "uint16", "float16", "float32"] | None = None
    memory: str | int | None = None
    jobs: int | None = None
    scheduler: str = "threads"
    cache: str | None = None
    keep_cache: bool = True
    cache_limit: str | int | None = None
    verify: Literal["full", "quick"] = "full"
    durable: bool = True
    max_failures: int | None = None

    def __post_init__(self) -> None:
        """Check ranges; SettingsError gives the value, the limit and the way out."""
        parse_priority(self.priority)
        if self.blur is not None and not (3 <= self.blur <= 101 and self.blur % 2 == 1):
            raise SettingsError(f"blur is {self.blur} px; it must be odd, in 3..101: leave it out to have it found")
        if not 0.25 <= self.tolerance <= 4:
            raise SettingsError(
                f"tolerance is {self.tolerance:g}; it must lie in 0.25 (fewer steps) .. 4 (more, sharper)"
            )
        if self.target is not None and not 0 <= self.target <= 2:
            raise SettingsError(f"target is {self.target:g} px; it must lie in 0 (a point) .. 2: the default is 0.35")
        if self.tile is not None and self.tile < 64:
            raise SettingsError(f"tile is {self.tile} px; the smallest is 64: smaller tiles are all halo")
        if self.halo is not None and not 0 <= self.halo <= 1024:
            raise SettingsError(f"halo is {self.halo} px; it must lie in 0..1024: leave it out to have it chosen")
        if self.jobs is not None and self.jobs < 1:
            raise SettingsError(f"jobs is {self.jobs}; at least 1 tile must be in flight")
        if self.memory is not None and self.memory != "auto":
            parse_bytes(self.memory)
        if self.cache_limit is not None:
            parse_bytes(self.cache_limit, "cache_limit")
        if self.max_failures is not None and self.max_failures < 0:
            raise SettingsError(f"max_failures is {self.max_failures}; it must be at least 0 (stop at the first)")
        if not re.fullmatch(r"threads|(tcp|tls)://.+|file:.+", self.scheduler):
            raise SettingsError(f"scheduler is {self.scheduler!r}; it must be threads, tcp://HOST:PORT or file:PATH")

    @property
    def priority_value(self) -> float:
        """The priority as a number."""
        return parse_priority(self.priority)

    @property
    def memory_bytes(self) -> int | None:
        """The budget in bytes."""
        return None if self.memory in (None, "auto") else parse_bytes(str(self.memory))


@dataclass(frozen=True)
class EffectiveSettings:
    """Settings and, for each key, where its value came from."""

    settings: Settings
    origins: dict[str, str]


def resolve(
    flags: Mapping[str, Any] | None = None, sets: Iterable[str] = (), config: str | Path | None = None
) -> EffectiveSettings:
    """Merge all layers.

    Parameters
    ----------
    flags : values given by flag or keyword; None means not given.
    sets : "key=value" strings.
    config : a TOML file.

    Raises
    ------
    SettingsError : an unknown key, a value of the wrong kind or out of range.
    InputNotFoundError : `config` does not exist.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    if Path(PROJECT_FILE).is_file():
        layers.append((PROJECT_FILE, _read_toml(Path(PROJECT_FILE))))
    if config is not None:
        layers.append((str(config), _read_toml(Path(config))))
    layers.append(("environment", _from_environment()))
    layers.append(("--set", dict(_split(item) for item in sets)))
    layers.append(("flag", {key: value for key, value in (flags or {}).items() if value is not None}))
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.__struct_fields__, "default")
    for origin, values in layers:
        for key, value in values.items():
            _check_known(key, origin)
            _convert({key: value}, origin)
            merged[key] = value
            origins[key] = origin
    return EffectiveSettings(_convert(merged, "settings"), origins)


def _convert(values: dict[str, Any], origin: str) -> Settings:
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, SettingsError):
            raise SettingsError(f"{origin}: {error.__cause__}") from None
        key, value = next(iter(values.items()), ("", ""))
        raise SettingsError(f"{origin}: {key} = {value!r}: {error}") from None


def _check_known(key: str, origin: str) -> None:
    known = Settings.__struct_fields__
    if key not in known:
        near = difflib.get_close_matches(key, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise SettingsError(f"{origin}: unknown setting {key!r}; {hint}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputNotFoundError(f"configuration {path} does not exist") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def _from_environment() -> dict[str, Any]:
    names = ((name, f"{ENVIRONMENT_PREFIX}{name.upper()}") for name in Settings.__struct_fields__)
    return {name: os.environ[variable] for name, variable in names if os.environ.get(variable)}


def _split(item: str) -> tuple[str, str]:
    key, sign, value = item.partition("=")
    if not sign:
        raise SettingsError(f"--set {item!r} has no '='; write key=value, as in --set tile=512")
    return key.strip().replace("-", "_"), value.strip()


def parse_priority(value: float | str) -> float:
    """Return the priority as a number in -1..1; SettingsError for anything else."""
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    try:
        number = float(value)
    except ValueError:
        raise SettingsError(f"priority is {value!r}; it must be {', '.join(PRIORITIES)} or a number in -1..1") from None
    if not -1 <= number <= 1:
        raise SettingsError(f"priority is {number:g}; it must lie in -1 (denoise) .. 1 (deblur)")
    return number
