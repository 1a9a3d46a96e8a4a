"""Atomic output files: written beside their final name, flushed to disk, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tilepipe.errors import DoesNotFitError, OutputError, OutputExistsError, TilepipeError
from tilepipe.system.file_lock import try_lock
from tilepipe.system.files import flush, is_disk_full, sync

__all__ = ["is_unfinished", "partial_of", "write_beside"]


def write_beside(path: Path, write: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Write ``PATH.partial``, flush it to disk and rename it to `path`; on failure `path` is unchanged.

    Parameters
    ----------
    path : Path
        Output file; a symbolic link stays, and what it leads to is written.
    write : callable
        ``write(partial)`` creates the file under the temporary name.
    overwrite : bool
        Whether to replace an existing file; if False, a file created in the meantime is not replaced either.

    Raises
    ------
    DoesNotFitError
        If the disk is full.
    OutputExistsError
        If `path` exists.
    OutputError
        If the file cannot be written, or another run is writing it.
    """
    path, partial = _real(path), partial_of(path)
    try:
        if is_unfinished(path):
            partial.unlink()
            overwrite = True
        with _locked(partial, path) as file:
            try:
                write(partial)
                flush(file.fileno())
                _rename(partial, path, overwrite=overwrite)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        sync(path.parent)
    except TilepipeError:
        raise  # some are also OSErrors
    except OSError as error:
        if is_disk_full(error):
            raise DoesNotFitError(
                f"the disk of the output {path} is full; free some space and rerun the same command to resume"
            ) from error
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def partial_of(path: Path) -> Path:
    """Return the temporary file of the output `path`: beside the file that a symbolic link leads to."""
    return (real := _real(path)).with_name(real.name + ".partial")


def _real(path: Path) -> Path:
    """Return what `path` leads to, if it is a symbolic link; renaming onto it would replace the link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def is_unfinished(path: Path) -> bool:
    """Return whether a run was killed after linking its finished file to `path`, before removing ``PATH.partial``."""
    try:
        return path.samefile(partial_of(path))
    except OSError:
        return False


@contextmanager
def _locked(partial: Path, path: Path) -> Iterator[IO[bytes]]:
    """Open `partial`, which a killed run may have left, and lock it, so that no other run writes the same output.

    Another run may rename or remove the file between the opening and the locking; then it is opened again.
    """
    while True:
        with partial.open("ab") as file:
            is_ours = True  # also where the file system or the platform has no locks
            with suppress(OSError):
                is_ours = try_lock(file)
            if not is_ours:
                raise OutputError(f"{path} is being written by another run; wait for it or use another output path")
            if _is_at(file, partial):
                yield file
                return


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Return whether the open `file` is the one that `path` names now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _rename(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Rename `partial` to `path`; without `overwrite` by a hard link, which fails atomically if `path` exists."""
    if overwrite:
        partial.replace(path)
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        raise OutputExistsError(
            f"output {path} was created during the run and was not replaced; --overwrite replaces it, "
            "completed work is kept"
        ) from None
    except OSError:  # a file system without hard links
        if path.exists():
            raise OutputExistsError(f"output {path} exists; --overwrite replaces it, completed work is kept") from None
        partial.replace(path)
    else:
        partial.unlink()
