"""Memory used by the process and available on the machine, in bytes; number of cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = [
    "HEAPS",
    "MOST_KEPT",
    "available",
    "cores",
    "keep_freed_memory",
    "peak_memory",
    "peak_since",
    "release_compiler_memory",
    "release_freed_memory",
    "return_memory_at_once",
    "used_memory",
]

CGROUP, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def used_memory() -> int:
    """Return the current resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Return the peak resident memory of this process, as counted by the kernel.

    On Linux this is VmHWM, which excludes the parent process; getrusage would include the memory at the fork.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return int(memory.peak_wset)
    try:
        import resource
    except ImportError:
        return int(memory.rss)
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(usage if sys.platform == "darwin" else usage * 1024)


def peak_since(before: int) -> int:
    """Return the peak resident memory since :func:`peak_memory` was `before`.

    Exact if it has risen since then, as in a process that only restores; otherwise the peak is that of other work, and
    the current memory is returned.
    """
    peak = peak_memory()
    return peak if peak > before else used_memory()


def available() -> int:
    """Return the memory available without swapping, within the limits of all control groups of this process."""
    return min(int(psutil.virtual_memory().available), *_available_in_groups())


def _available_in_groups() -> Iterator[int]:
    """Yield the memory left in each control group of this process: version 2, and the memory groups of version 1.

    A container sees its own group as the root; outside a container, the limits of all parent groups apply as well.
    """
    yield sys.maxsize
    with contextlib.suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root, limit, used = (
                (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
                if kinds
                else (CGROUP, "memory.max", "memory.current")
            )
            own = root / path.lstrip("/")
            for group in (own, *own.parents):
                if group != root and root not in group.parents:
                    break
                with contextlib.suppress(OSError, ValueError):  # without a limit: no file, or "max"
                    yield max(0, int((group / limit).read_text()) - int((group / used).read_text()))


M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_ARENA_MAX = -3, -1, -8
"""glibc's mallopt parameters (malloc.h)."""

LARGE_BLOCK = 1 << 17
"""Blocks of at least this size get their own pages, which return to the system when the block is freed."""

HEAPS = 2
"""Heaps shared by all threads; by default glibc gives each thread its own, which costs 70 MB more at 24 Mpx."""

LARGEST_KEPT, MOST_KEPT = 12 << 20, 24 << 20
"""While windows and tiles are restored, the process keeps freed blocks below the first size, and up to the second size,
in bytes, of free memory at the end of a heap.  Each window and tile needs the same temporary arrays again, and a fresh
page costs 3 us, a quarter of the time.
"""


def return_memory_at_once() -> None:
    """Make glibc return large blocks to the system as soon as they are freed.

    By default glibc gradually raises this threshold to 32 MiB; freed arrays then stay in its heaps, and a process that
    needs 400 MB occupies 700 MB.  With other C libraries (musl, macOS) this does nothing.
    """
    _set_malloc(LARGE_BLOCK, LARGE_BLOCK)


def keep_freed_memory() -> None:
    """Make glibc keep memory freed by one window or tile for the next; workspaces are above the threshold."""
    _set_malloc(LARGEST_KEPT, MOST_KEPT)


def _set_malloc(mmap_threshold: int, trim_threshold: int) -> None:
    """Set glibc's thresholds, bytes, and its number of heaps; do nothing with other C libraries."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, mmap_threshold)
        libc.mallopt(M_TRIM_THRESHOLD, trim_threshold)
        libc.mallopt(M_ARENA_MAX, HEAPS)


def release_freed_memory() -> None:
    """Return all freed memory to the system, so that the memory used next is what is held; only with glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(ctypes.c_size_t(0))


MADV_DONTNEED = 4
"""Linux's madvise advice (mman-common.h)."""

LARGE_LIBRARY = 8 << 20
"""Code segments of at least this size are unmapped; in practice LLVM's, of which compiling touches 60..120 MB."""


def release_compiler_memory() -> None:
    """Unmap the code pages of large libraries; pages still needed are read again from the page cache.

    The system counts mapped library pages as memory of the process, in varying numbers (a fresh install maps twice as
    many as an old one), and LLVM is needed only while kernels are compiled.  Code segments are read-only and hold no
    relocations, so nothing is lost.  On other systems this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError, ValueError):
        libc = ctypes.CDLL("libc.so.6")
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, permissions, *rest = line.split()
            start, stop = (int(address, 16) for address in span.split("-"))
            if permissions == "r-xp" and ".so" in rest[-1] and stop - start >= LARGE_LIBRARY:
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), MADV_DONTNEED)


def cores() -> int:
    """Return the number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not available on macOS and Windows
        return os.cpu_count() or 1
