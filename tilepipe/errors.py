"""Every error that tilepipe raises on purpose, with the exit code that scripts rely on.

The tree::

    TilepipeError                 1
    ├── SettingsError             2   (ValueError)         usage, settings, configuration
    │   └── PsfError              2                        a PSF that cannot be used
    ├── InputError                3                        unreadable or unsupported input
    │   └── InputNotFoundError    3   (FileNotFoundError)
    ├── OutputError               4                        output cannot be written
    │   └── OutputExistsError     4   (FileExistsError)
    ├── DoesNotFitError           5                        memory or disk
    ├── TilesFailedError          6                        some tiles failed; the rest is kept
    ├── CacheError                7                        cache in use, or not what was asked for
    ├── UncertainPsfError         8                        the blur cannot be told from the picture
    └── InterruptedRunError     130                        stopped by the user, resumable (143 for SIGTERM)

A message gives the value, the limit and the way out, in one line.
"""

from __future__ import annotations

__all__ = [
    "CacheError",
    "DoesNotFitError",
    "InputError",
    "InputNotFoundError",
    "InterruptedRunError",
    "OutputError",
    "OutputExistsError",
    "PsfError",
    "SettingsError",
    "TilepipeError",
    "TilesFailedError",
    "UncertainPsfError",
]


class TilepipeError(Exception):
    """Root of the tree; ``exit_code`` is what the command line returns for it."""

    exit_code = 1


class SettingsError(TilepipeError, ValueError):
    """A flag, keyword or configuration value that cannot be used."""

    exit_code = 2


class PsfError(SettingsError):
    """A PSF that is even, negative, too large, or does not sum to 1."""


class InputError(TilepipeError):
    """The input is damaged, not an image, or of a kind that is not supported."""

    exit_code = 3


class InputNotFoundError(InputError, FileNotFoundError):
    """The input does not exist or may not be read."""


class OutputError(TilepipeError):
    """The output cannot be written where it was asked for."""

    exit_code = 4


class OutputExistsError(OutputError, FileExistsError):
    """The output exists and overwriting was not asked for."""


class DoesNotFitError(TilepipeError):
    """The work needs more memory or disk than is allowed or free."""

    exit_code = 5


class TilesFailedError(TilepipeError):
    """Some tiles raised; all others are in the cache."""

    exit_code = 6


class CacheError(TilepipeError):
    """The cache is used by another run, damaged, or not a cache."""

    exit_code = 7


class UncertainPsfError(TilepipeError):
    """The blur was not found, or not surely enough: give a PSF, another window, or --force."""

    exit_code = 8


class InterruptedRunError(TilepipeError):
    """The run was stopped on purpose; the same command goes on from the ledger."""

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
