"""Outputs that are complete, so that a repeated command for many images skips them without opening the images."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tilepipe.cache.digests import recall_digest
from tilepipe.cache.layout import written_file
from tilepipe.errors import InputError
from tilepipe.system.files import printable, read_sealed, write_sealed
from tilepipe.system.folders import size_and_time
from tilepipe.system.object_store import StoragePath

__all__ = ["is_written", "note_written"]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """An output file or folder, and what it was made from.

    Parameters
    ----------
    output : str
        The file, for human readers.
    size, modified : int
        As :func:`tilepipe.system.folders.size_and_time` after it was written.
    content : str
        SHA-256 of the input file.
    key : str
        Digest of the settings that determine the output.
    """

    output: str
    size: int
    modified: int
    content: str
    key: str


def note_written(root: StoragePath, image: Path, output: Path, key: str) -> None:
    """Record in the cache at `root` that `output` was made from `image` with the settings of `key`."""
    content, _ = recall_digest(root, image)
    if content is not None:
        write_sealed(written_file(root, output), msgspec.json.encode(_written(output, content, key)))


def is_written(root: StoragePath, image: Path, output: Path, key: str) -> bool:
    """Return whether `output` is as it was written, from `image` as it is now, with the settings of `key`."""
    data = read_sealed(written_file(root, output))
    content, _ = recall_digest(root, image)
    if data is None or content is None:
        return False
    try:
        return msgspec.json.decode(data, type=Written) == _written(output, content, key)
    except (msgspec.MsgspecError, OSError, InputError):  # another format; the output is gone, or has links in it
        return False


def _written(output: Path, content: str, key: str) -> Written:
    size, modified = size_and_time(output)
    return Written(output=printable(output.resolve()), size=size, modified=modified, content=content, key=key)
