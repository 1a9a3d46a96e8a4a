"""What the process uses and what the machine has left: memory in bytes, cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = [
    "available",
    "cores",
    "forget_peak",
    "keep_memory_for_tiles",
    "peak_memory",
    "release_compiler_memory",
    "return_memory_at_once",
    "used_memory",
]

CGROUP, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def used_memory() -> int:
    """Return the resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Return the largest resident memory of this process, as the kernel kept it since :func:`forget_peak`.

    Linux's VmHWM belongs to the program alone; getrusage would include what forked it.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(usage if sys.platform == "darwin" else usage * 1024)


def forget_peak() -> None:
    """Let :func:`peak_memory` count from here (Linux; proc(5), clear_refs): what came before was not this run."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available() -> int:
    """Return the memory that can be had without swapping, the limits of all control groups round us included."""
    return min(int(psutil.virtual_memory().available), *_left_in_groups())


def _left_in_groups() -> Iterator[int]:
    """Yield what each control group that this process is in has left: version 2, and version 1's for memory.

    A container sees its own group as the root; outside of one a group may lie deep, and each above it counts.
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
                with contextlib.suppress(OSError, ValueError):  # no limit: no file, or "max"
                    yield max(0, int((group / limit).read_text()) - int((group / used).read_text()))


M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_ARENA_MAX = -3, -1, -8
"""glibc's mallopt parameters (malloc.h)."""

LARGE_BLOCK = 1 << 17
"""Blocks from this size on get pages of their own, which go back to the system when they are freed."""

HEAPS = 2
"""Heaps that all threads share; left alone glibc gives each its own, with its own leavings: 70 MB more at 24 Mpx."""

LARGEST_KEPT, MOST_KEPT = 12 << 20, 24 << 20
"""While tiles are restored: smaller blocks stay with the process when they are freed, up to so many bytes at the end of
a heap.  What a tile needs for a moment the next one needs again, and a fresh page costs 3 us, a quarter of the time.
"""


def return_memory_at_once() -> None:
    """Make glibc give large blocks back as they are freed.

    Left alone it raises that limit to 32 MiB by and by; freed arrays then stay in its heaps and a process
    that needs 400 MB shows 700 MB.  Elsewhere (musl, macOS) nothing is done.
    """
    _set_malloc(LARGE_BLOCK, LARGE_BLOCK)


def keep_memory_for_tiles() -> None:
    """Let glibc keep what a tile frees for the next one; workspaces are larger and do not count."""
    _set_malloc(LARGEST_KEPT, MOST_KEPT)


def _set_malloc(own_pages: int, kept: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, own_pages)
        libc.mallopt(M_TRIM_THRESHOLD, kept)
        libc.mallopt(M_ARENA_MAX, HEAPS)


MADV_DONTNEED = 4
"""Linux's madvise advice (mman-common.h)."""

LARGE_LIBRARY = 8 << 20
"""Code segments from this size on are let go of; in practice LLVM's, of which compiling touches 60..120 MB."""


def release_compiler_memory() -> None:
    """Unmap the pages of large libraries' code; what is still needed comes back from the page cache at a touch.

    The system counts mapped pages of a library as the process's memory, however many that were (a fresh
    install maps twice as many as an old one), and LLVM is needed only while kernels are compiled.  Code
    segments are read-only and hold no relocations, so nothing can be lost.  Elsewhere nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError, ValueError):
        libc = ctypes.CDLL("libc.so.6")
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, permissions, *rest = line.split()
            start, stop = (int(address, 16) for address in span.split("-"))
            if permissions == "r-xp" and ".so" in rest[-1] and stop - start >= LARGE_LIBRARY:
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), MADV_DONTNEED)


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
