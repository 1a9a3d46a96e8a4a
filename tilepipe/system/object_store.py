"""Paths of objects in a bucket (``s3://``, ``gs://``), with the methods of `pathlib.Path` that a cache needs.

obstore sends the requests.  It takes the credentials from the environment (variables, web identity, container or
machine role), and repeats requests that fail for a passing reason, with exponential backoff and jitter.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tilepipe.errors import StorageError

__all__ = ["ObjectPath", "ObjectStat", "StoragePath", "Version", "object_errors", "storage_path"]

SCHEMES = ("s3", "gs")
"""Schemes of the addresses of objects."""

RETRIES, RETRY_SECONDS = 8, 60
"""Repetitions of a request, and the time after which none follows, s."""

DELETED_AT_A_TIME = 1000
"""Objects that one request deletes (the limit of S3)."""

FULL = ("QuotaExceeded", "InsufficientStorage", "StorageFull", "status code: 507")
"""Parts of the errors of a store that has no space left."""

Version = dict[str, Any]
"""What identifies the content of an object: its entity tag, and its version where the store has versions."""


class ObjectStat(NamedTuple):
    """Size of an object, bytes, and time of its last change, seconds since 1970."""

    st_size: int
    st_mtime: float


@dataclass(frozen=True, order=True)
class ObjectPath:
    """The address of an object, or of all objects below it.

    Parameters
    ----------
    bucket : str
        Scheme and name of the bucket, ``s3://photos``.
    key : str
        Name in the bucket, without a slash at either end.
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Last part of the key, up to its last dot."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> ObjectPath:
        """The address without the last part of the key."""
        return ObjectPath(self.bucket, self.key.rpartition("/")[0])

    def with_suffix(self, suffix: str) -> ObjectPath:
        """Return the address with another ending."""
        return self.parent / f"{self.stem}{suffix}"

    def absolute(self) -> ObjectPath:
        """Return the address, which is complete."""
        return self

    @property
    def store(self) -> Any:
        """The obstore store of the bucket."""
        return _open_bucket(self.bucket)

    def read_bytes(self) -> bytes:
        """Return the content; FileNotFoundError if there is none."""
        with object_errors(self):
            return self.store.get(self.key).bytes().to_bytes()  # type: ignore[no-any-return]  # the store is untyped

    def read_text(self, errors: str = "strict") -> str:
        """Return the content as text."""
        return self.read_bytes().decode(errors=errors)

    def read_version(self) -> tuple[bytes, Version]:
        """Return the content and its version."""
        with object_errors(self):
            found = self.store.get(self.key)
            return found.bytes().to_bytes(), _version(found.meta)

    def write_bytes(self, data: bytes) -> None:
        """Write the content: readers see the old one or this one, complete."""
        with object_errors(self):
            self.store.put(self.key, data, use_multipart=False)

    def create(self, data: bytes) -> Version:
        """Write the content; FileExistsError if the object exists."""
        return self._put(data, "create")

    def replace_version(self, data: bytes, version: Version) -> Version:
        """Write the content in place of `version`; FileExistsError if the object has another version, or is gone."""
        return self._put(data, version)

    def _put(self, data: bytes, mode: str | Version) -> Version:
        with object_errors(self):
            return _version(self.store.put(self.key, data, mode=mode, use_multipart=False))

    def copy_to(self, target: ObjectPath) -> None:
        """Copy the object within its bucket, in the store itself."""
        with object_errors(self):
            self.store.copy(self.key, target.key)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object.  Stores do not tell whether it existed, so `missing_ok` makes no difference."""
        with object_errors(self):
            try:
                self.store.delete(self.key)
            except FileNotFoundError:  # some do
                if not missing_ok:
                    raise

    def stat(self) -> ObjectStat:
        """Return size and time; FileNotFoundError if the object does not exist."""
        with object_errors(self):
            found = self.store.head(self.key)
        return ObjectStat(found["size"], found["last_modified"].timestamp())

    def exists(self) -> bool:
        """Return whether the object exists, or objects below it do."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Return whether the object exists."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return whether there are objects below this address."""
        with object_errors(self):
            return any(True for block in self.store.list(self.key, chunk_size=1) for _ in block)

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Yield what matches `pattern`, whose parts may hold ``*``; one that ends with a slash matches folders only."""
        part, _, rest = pattern.partition("/")
        if "*" not in part:
            path = self / part
            if rest:
                yield from path.glob(rest)
            elif path.is_file():
                yield path
            return
        folders, objects = self._entries()
        matching = [path for path in folders if fnmatchcase(path.name, part)]
        if rest:
            for path in matching:
                yield from path.glob(rest)
            return
        yield from matching
        if not pattern.endswith("/"):
            yield from (path for path in objects if fnmatchcase(path.name, part))

    def below(self) -> Iterator[tuple[ObjectPath, int]]:
        """Yield every object below this address with its size, bytes."""
        with object_errors(self):
            for block in self.store.list(self.key or None):
                for entry in block:
                    yield ObjectPath(self.bucket, entry["path"]), entry["size"]

    def remove_below(self, keep: ObjectPath | None = None) -> int:
        """Delete every object below this address but `keep`, many at a time; return their size, bytes."""
        freed = 0
        with object_errors(self):
            for block in self.store.list(self.key or None, chunk_size=DELETED_AT_A_TIME):
                entries = [entry for entry in block if keep is None or entry["path"] != keep.key]
                if entries:
                    self.store.delete([entry["path"] for entry in entries])
                freed += sum(entry["size"] for entry in entries)
        return freed

    def _entries(self) -> tuple[list[ObjectPath], list[ObjectPath]]:
        """Return the addresses with objects below them, and the objects, one level below this address."""
        with object_errors(self):
            found = self.store.list_with_delimiter(self.key or None)
        folders = [ObjectPath(self.bucket, prefix.rstrip("/")) for prefix in found["common_prefixes"]]
        return folders, [ObjectPath(self.bucket, entry["path"]) for entry in found["objects"]]


StoragePath = Path | ObjectPath
"""A path in a file system, or an address in an object store."""


def storage_path(text: str) -> StoragePath:
    """Return the path or the address that `text` names; ``file://`` names a path.

    Raises
    ------
    ValueError
        If the scheme is not known, the bucket is missing, or the address holds credentials.
    ImportError
        If obstore is not installed.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text).expanduser()
    if scheme == "file":
        return Path(rest)
    bucket, _, key = rest.partition("/")
    if scheme not in SCHEMES or not bucket:
        raise ValueError(
            f"{text}: addresses are {', '.join(f'{one}://BUCKET/NAME' for one in SCHEMES)} or file:///PATH"
        )
    if "@" in bucket:
        raise ValueError("an address must not hold credentials; put them into the environment (AWS_ACCESS_KEY_ID, ...)")
    path = ObjectPath(f"{scheme}://{bucket}", key.strip("/"))
    with object_errors(path):
        _ = path.store
    return path


@cache
def _open_bucket(url: str) -> Any:
    from obstore.store import from_url

    return from_url(
        url,
        client_options={"allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")},
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    )


def _version(found: Any) -> Version:
    """Return the version in an answer of the store, without what it leaves open."""
    return {name: found[name] for name in ("e_tag", "version") if found.get(name) is not None}


@contextmanager
def object_errors(path: object) -> Iterator[None]:
    """Raise errors of obstore as errors of files: FileNotFoundError, FileExistsError, OSError for a full store.

    All others become `StorageError`.  The original error is not chained: it holds the whole answer of the store.
    """
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise StorageError(errno.ENODEV, "the bucket does not exist", str(path)) from None
        raise FileNotFoundError(errno.ENOENT, "no such object", str(path)) from None
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise FileExistsError(errno.EEXIST, "the object exists, or was changed", str(path)) from None
    except exceptions.BaseError as error:
        if any(part in str(error) for part in FULL):
            raise OSError(errno.ENOSPC, _reason(str(error)), str(path)) from None
        # obstore has repeated the request: a number that is not repeated once more
        raise StorageError(errno.ENOTCONN, _reason(str(error)), str(path)) from None


def _reason(text: str) -> str:
    """Return a line that says why a request failed."""
    if "169.254.169.254" in text:
        return "no credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role)"
    if "error sending request" in text:
        return f"no answer from {os.environ.get('AWS_ENDPOINT_URL', 'the store')}"
    code, message = (re.search(f"<{name}>(.*?)</{name}>", text) for name in ("Code", "Message"))
    if code:
        return f"the store answers {code[1]}{f': {message[1]}' if message else ''}".rstrip(".")
    status = re.search(r"status code: (\d+ [\w ]*\w)", text)
    return f"the store answers {status[1]}" if status else text.splitlines()[0].rpartition(" - ")[2]
