"""SHA-256 of input files, remembered with what their stat said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from tilepipe.cache.layout import digest_file
from tilepipe.system.files import read_sealed, write_sealed

__all__ = ["FileDigest", "Stamp", "digest_of", "recall_digest", "stamp_of"]

READ_BLOCK = 1 << 20

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, and times of the last change of content and of inode, ns: another one may be another file."""


def stamp_of(path: Path) -> Stamp:
    """Return what tells without reading whether a file was touched; OSError when it is not there."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file's bytes.

    Parameters
    ----------
    path : the file, for people.
    stamp : it had when it was read.
    sha256 : of its bytes then.
    before : of the bytes it had before that, when they were others.
    """

    path: str
    stamp: Stamp
    sha256: str
    before: str | None = None


def recall_digest(root: Path, path: Path) -> tuple[str | None, str | None]:
    """Return (SHA-256 of `path`, SHA-256 of what it was before) without reading it.

    The first is None when the file was touched since it was hashed; the second when nothing is known.
    """
    known = _known(root, path)
    if known is None:
        return None, None
    try:
        same = known.stamp == stamp_of(path)
    except OSError:
        same = False
    return (known.sha256, known.before) if same else (None, known.sha256)


def digest_of(root: Path, path: Path, *, trust_stamp: bool = False) -> FileDigest:
    """Read and hash the file at `path`, and remember that; with `trust_stamp` an untouched one is not read again."""
    known, stamp = _known(root, path), stamp_of(path)
    if trust_stamp and known is not None and known.stamp == stamp:
        return known
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BLOCK):
            digest.update(block)
    content, before = digest.hexdigest(), None
    if known is not None:
        before = known.before if known.sha256 == content else known.sha256
    found = FileDigest(path=str(path.resolve()), stamp=stamp, sha256=content, before=before)
    if found != known:
        write_sealed(digest_file(root, path), msgspec.json.encode(found))
    return found


def _known(root: Path, path: Path) -> FileDigest | None:
    data = read_sealed(digest_file(root, path))
    try:
        return None if data is None else msgspec.json.decode(data, type=FileDigest)
    except msgspec.MsgspecError:  # of another format
        return None
