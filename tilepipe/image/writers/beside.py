"""Atomic output files and folders: written beside their final name, flushed to disk, then renamed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tilepipe.errors import DoesNotFitError, OutputError, OutputExistsError, TilepipeError
from tilepipe.image.zarr_folder import ZARR_MARKS, is_zarr
from tilepipe.system.file_lock import try_lock
from tilepipe.system.files import flush, is_disk_full, sync
from tilepipe.system.folders import exchange, flush_folder, remove_folder

__all__ = ["is_unfinished", "partial_of", "write_beside", "write_folder_beside"]


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
    with _disk_errors(path):
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


def write_folder_beside(path: Path, write: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Write the folder ``PATH.partial``, flush it to disk and rename it to `path`; on failure `path` is unchanged.

    Other runs are kept off by a lock on the file ``PATH.partial.lock``.  An existing folder is exchanged for the new
    one in one step on Linux; elsewhere a run that is killed between two renamings leaves the new one as
    ``PATH.partial`` and the old one as ``PATH.partial.old``.

    Parameters
    ----------
    path : Path
        Output folder; a symbolic link stays, and what it leads to is written.
    write : callable
        ``write(partial)`` creates the folder under the temporary name.
    overwrite : bool
        Whether to replace an existing zarr folder; if False, one created in the meantime is not replaced either.

    Raises
    ------
    DoesNotFitError, OutputExistsError, OutputError
        As :func:`write_beside`; also if what is to be replaced is not a zarr folder.
    """
    path, partial = _real(path), partial_of(path)
    lock = partial.with_name(partial.name + ".lock")
    with _disk_errors(path):
        with _locked(lock, path):
            try:
                _remove_zarr(partial)
                try:
                    write(partial)
                    flush_folder(partial)
                    _put_in_place(partial, path, overwrite=overwrite)
                finally:
                    _remove_zarr(partial)  # after an exchange, the folder that was replaced
            finally:
                if sys.platform != "win32":
                    lock.unlink(missing_ok=True)
        if sys.platform == "win32":  # where an open file cannot be removed, and one that another run opened neither
            with suppress(OSError):
                lock.unlink(missing_ok=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Convert errors of the disk into errors with a one-line message."""
    try:
        yield
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


def _put_in_place(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Give the finished folder `partial` the name `path`; a folder that it replaces is `partial` then, or removed."""
    if not os.path.lexists(path):
        partial.rename(path)  # fails if a folder with content, or a file, was created in the meantime
        sync(path.parent)
        return
    if not overwrite:
        raise OutputExistsError(
            f"output {path} was created during the run and was not replaced; --overwrite replaces it, "
            "completed work is kept"
        )
    if not is_zarr(path):
        raise OutputError(f"output {path} exists and is not a zarr folder; give another name")
    if not exchange(partial, path):
        old = partial.with_name(partial.name + ".old")
        _remove_zarr(old)
        path.rename(old)
        partial.rename(path)
        old.rename(partial)
    sync(path.parent)


def _remove_zarr(folder: Path) -> None:
    """Remove a zarr folder, also one that was only begun; nothing if there is none.

    Raises
    ------
    OutputError
        If it is something else.
    """
    if not os.path.lexists(folder):
        return
    if not is_zarr(folder) and (not folder.is_dir() or any(entry.suffix != ".partial" for entry in folder.iterdir())):
        raise OutputError(f"{folder} is in the way, and is not what an earlier run left there; rename or remove it")
    remove_folder(folder, ZARR_MARKS)
