"""SHA-256 digests of input files, or folders that are a picture, cached together with what shows a change."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from tilepipe.cache.layout import digest_file
from tilepipe.errors import InputError
from tilepipe.system.files import printable, read_sealed, write_sealed
from tilepipe.system.folders import files_in, touch_marks
from tilepipe.system.object_store import StoragePath

__all__ = ["FileDigest", "Stamp", "digest_of", "recall_digest", "stamp_of"]

READ_BLOCK = 1 << 20
"""Bytes read at a time."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime, ns.  A file with a different stamp may have different content.

Of a folder: device, inode, and the three numbers of :func:`tilepipe.system.folders.touch_marks`.
"""


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file or folder, which shows without reading it whether it was touched.

    Raises
    ------
    OSError
        If it does not exist.
    InputError
        If a folder contains a symbolic link, see :func:`tilepipe.system.folders.files_in`.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        return status.st_dev, status.st_ino, *touch_marks(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """Digest of a file or folder at the time it was read.

    Parameters
    ----------
    path : str
        The file or folder, for human readers.
    stamp : tuple of int, length 5
        Its stamp when it was read.
    sha256 : str
        SHA-256 of its content.
    before : str or None
        SHA-256 of its previous, different content, if recorded.
    """

    path: str
    stamp: Stamp
    sha256: str
    before: str | None = None


def recall_digest(root: StoragePath, path: Path) -> tuple[str | None, str | None]:
    """Return the SHA-256 of `path` and that of its previous content, without reading it.

    The first is None if the file was never hashed or was touched since; the second is None if none is recorded.
    """
    stored = _load_digest(root, path)
    if stored is None:
        return None, None
    try:
        is_untouched = stored.stamp == stamp_of(path)
    except (OSError, InputError):
        is_untouched = False
    return (stored.sha256, stored.before) if is_untouched else (None, stored.sha256)


def digest_of(
    root: StoragePath, path: Path, *, trust_stamp: bool = False, check: Callable[[], None] = lambda: None
) -> FileDigest:
    """Hash the file or folder at `path` and store the digest; with `trust_stamp` one with the stored stamp is not read.

    The digest of a folder is that of the names and the contents of its files.
    `check` is called before every block and raises to stop.  Raises InputError, and stores nothing, if not all of a
    file can be read.
    """
    stored, stamp = _load_digest(root, path), stamp_of(path)
    if trust_stamp and stored is not None and stored.stamp == stamp:
        return stored
    content, before = (_folder_content if path.is_dir() else _file_content)(path, check).hex(), None
    if stored is not None:
        before = stored.before if stored.sha256 == content else stored.sha256
    current = FileDigest(path=printable(path.resolve()), stamp=stamp, sha256=content, before=before)
    if current != stored:
        write_sealed(digest_file(root, path), msgspec.json.encode(current))
    return current


def _file_content(path: Path, check: Callable[[], None]) -> bytes:
    """Return the SHA-256 of a file; raise InputError if not all of it can be read."""
    digest, number = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(READ_BLOCK):
            check()
            digest.update(block)
            number += len(block)
    if number != (size := path.stat().st_size):
        raise InputError(
            f"{number} of the {size} bytes of {path} were read: another program is writing it, or its disk fails; "
            "run the same command again when the file is complete"
        )
    return digest.digest()


def _folder_content(path: Path, check: Callable[[], None]) -> bytes:
    """Return the SHA-256 of the names and contents of all files of a folder, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(os.fsencode(name) for name, _ in files_in(path)):
        digest.update(name + b"\0" + _file_content(path / os.fsdecode(name), check))
    return digest.digest()


def _load_digest(root: StoragePath, path: Path) -> FileDigest | None:
    """Return the stored digest of `path`; None if absent, damaged or in another format."""
    data = read_sealed(digest_file(root, path))
    try:
        return None if data is None else msgspec.json.decode(data, type=FileDigest)
    except msgspec.MsgspecError:  # another format
        return None
