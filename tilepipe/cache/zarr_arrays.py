"""zarr arrays in a folder or an object store, opened so that a missing chunk is an error, not zeros."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, ObjectStore, WrapperStore

from tilepipe.errors import CacheError
from tilepipe.system.object_store import ObjectPath, StoragePath

__all__ = ["CHUNK", "DamagedError", "open_array", "open_complete_array"]

CHUNK = "c."
"""Start of the names of chunks."""


class DamagedError(CacheError):
    """A chunk is missing, or its content is not what was written."""


class CompleteStore(WrapperStore[Store]):
    """A store in which every chunk exists; zarr would return zeros for one that does not."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the content of `key`; DamagedError if it is a chunk that does not exist."""
        found = await self._store.get(key, prototype, byte_range)
        if found is None and key.rpartition("/")[2].startswith(CHUNK):
            raise DamagedError(f"{self._store}/{key} is missing; run again to recompute missing chunks")
        return found


def open_array(folder: StoragePath) -> zarr.Array[Any]:
    """Return the array in `folder` for writing.  Chunks of zeros are written too.  DamagedError if its header is."""
    store, path = _store_of(folder)
    with _damage(folder):
        array = zarr.open_array(store=store, path=path, mode="r+", zarr_format=3)
    return array.with_config({"write_empty_chunks": True})  # open_array ignores its config (zarr 3.1)


def open_complete_array(folder: StoragePath) -> zarr.Array[Any]:
    """Return the array in `folder` for reading; a damaged header or a missing chunk raises `DamagedError`."""
    store, path = _store_of(folder)
    with _damage(folder):
        return zarr.open_array(store=CompleteStore(store), path=path, mode="r", zarr_format=3)


@contextmanager
def _damage(folder: StoragePath) -> Iterator[None]:
    """Convert what zarr raises for a header that it cannot parse, as after a read in part, into a `DamagedError`."""
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        raise DamagedError(f"the header of {folder} is damaged ({error}); run again to rewrite it") from error


def _store_of(folder: StoragePath) -> tuple[Store, str]:
    """Return the zarr store that holds `folder`, and the path in it."""
    if isinstance(folder, ObjectPath):
        return ObjectStore(folder.store), folder.key
    return LocalStore(folder), ""
