"""Writer of numpy's ``.npy``: block by block into the mapped file; it holds samples and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.writers.output import Output

__all__ = ["metadata_lost", "write_npy"]


def metadata_lost(metadata: Metadata) -> list[str]:
    """Return the names of all that the input has: a .npy has no place for any of it."""
    return metadata.names()


def write_npy(path: Path, output: Output) -> None:
    """Create the file `path`, an array (height, width) or (height, width, channels) in C order."""
    info, channels = output.info, output.info.written_channels
    shape = (info.height, info.width, channels) if channels > 1 else (info.height, info.width)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(output.dtype), shape=shape)
    for top, left, block in output.placed():
        pixels = block[:, :, :channels] if channels > 1 else block[:, :, 0]
        array[top : top + len(block), left : left + block.shape[1]] = pixels
        if left + block.shape[1] == info.width:
            array.flush()
