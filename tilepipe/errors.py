"""Exceptions raised by tilepipe, with their exit codes.

The hierarchy::

    TilepipeError                 1
    ├── SettingsError             2   (ValueError)         usage, settings, configuration
    │   └── PsfError              2                        invalid PSF
    ├── InputError                3                        unreadable or unsupported input
    │   └── InputNotFoundError    3   (FileNotFoundError)
    ├── OutputError               4                        the output cannot be written
    │   └── OutputExistsError     4   (FileExistsError)
    ├── DoesNotFitError           5                        not enough memory or disk
    ├── TilesFailedError          6                        some tiles failed; all others are kept
    ├── CacheError                7                        cache in use, damaged, or not a cache
    │   └── StorageError          7   (OSError)            object store not reached, or request refused
    ├── UncertainPsfError         8                        the blur cannot be estimated from the image
    └── InterruptedRunError     130                        stopped by the user, resumable (143 for SIGTERM)

A message states the value, the limit and the way out, in one line.
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
    "StorageError",
    "TilepipeError",
    "TilesFailedError",
    "UncertainPsfError",
]


class TilepipeError(Exception):
    """Base class; ``exit_code`` is the exit code of the command line."""

    exit_code = 1


class SettingsError(TilepipeError, ValueError):
    """A flag, keyword or configuration value is invalid."""

    exit_code = 2


class PsfError(SettingsError):
    """The PSF is invalid, for example of even size, negative, too large, or not of sum 1."""


class InputError(TilepipeError):
    """The input is damaged, not an image, or of an unsupported kind."""

    exit_code = 3


class InputNotFoundError(InputError, FileNotFoundError):
    """The input does not exist or cannot be read."""


class OutputError(TilepipeError):
    """The output cannot be written to the requested path."""

    exit_code = 4


class OutputExistsError(OutputError, FileExistsError):
    """The output exists and overwriting was not requested."""


class DoesNotFitError(TilepipeError):
    """The run needs more memory or disk than is allowed or free."""

    exit_code = 5


class TilesFailedError(TilepipeError):
    """Some tiles failed; all others are in the cache."""

    exit_code = 6


class CacheError(TilepipeError):
    """The cache is in use by another run, damaged, or not a cache."""

    exit_code = 7


class StorageError(CacheError, OSError):
    """An object store cannot be reached, or refuses a request; arguments as for OSError: number, reason, address."""

    def __str__(self) -> str:
        return (
            f"{self.filename} cannot be read or written: {self.strerror}; "
            "check the address, the credentials and the network, and run the same command again"
        )


class UncertainPsfError(TilepipeError):
    """The blur was not found, or its estimate is too uncertain: give a PSF, another window, or --force."""

    exit_code = 8


class InterruptedRunError(TilepipeError):
    """The run was stopped by the user; the same command resumes it from the ledger."""

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
