"""How far the data of a truncated JPEG goes: its Huffman codes are counted, not decoded to pixels (ITU-T T.81, F.2).

libjpeg fills what is missing with gray and does not tell where that begins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilepipe.system.jit import kernel

__all__ = ["Scan", "complete_rows", "has_end"]

RESTART = re.compile(rb"\xff[\xd0-\xd7]")

PART = 1 << 20
"""Bytes of a file that are searched for a marker at a time; six times as fast as a regular expression."""

BLOCK = 8
"""Edge of a block of coefficients, px."""


@dataclass(frozen=True)
class Scan:
    """A sequential scan of all components.

    Parameters
    ----------
    height, width : int
        Size of the picture, px.
    sampling : sequence of (int, int)
        Horizontal and vertical sampling factor of each component.
    tables : sequence of (bytes, bytes)
        Huffman tables of each component, for DC and AC coefficients, as in the file: 16 numbers of codes, and symbols.
    restart : int
        Units between restart markers; 0 without any.
    """

    height: int
    width: int
    sampling: Sequence[tuple[int, int]]
    tables: Sequence[tuple[bytes, bytes]]
    restart: int

    @property
    def factors(self) -> list[tuple[int, int]]:
        """Blocks of each component in a unit, across and down; a component alone has one (A.2.2)."""
        return list(self.sampling) if len(self.sampling) > 1 else [(1, 1)]

    @property
    def unit_shape(self) -> tuple[int, int]:
        """Height and width of a unit, px."""
        return BLOCK * max(down for _, down in self.factors), BLOCK * max(across for across, _ in self.factors)


def has_end(path: Path, at: int) -> bool:
    """Return whether the data of a scan, from the byte `at` on, is followed by a marker that is no restart."""
    with path.open("rb") as file:
        file.seek(at)
        last = b""
        while part := file.read(PART):
            codes = np.frombuffer(last + part, np.uint8)
            behind = codes[1:][codes[:-1] == 0xFF]
            if ((behind != 0) & (behind != 0xFF) & (behind & 0xF8 != 0xD0)).any():
                return True
            last = part[-1:]
    return False


def complete_rows(data: bytes, scan: Scan) -> int:
    """Return the number of rows of pixels that the data of a scan determines.

    Parameters
    ----------
    data : bytes
        Entropy-coded data up to the next marker that is no restart, or to the end of the file.
    scan : Scan
        How it is coded.

    Returns
    -------
    int
        Up to ``scan.height``.  Where colours are stored at half the resolution, decoders blend rows of neighbouring
        units, and the last rows of the last complete unit do not count.
    """
    height, width = scan.unit_shape
    across, down = -(-scan.width // width), -(-scan.height // height)
    units = _complete_units(data, scan, across * down)
    if units >= across * down:
        return scan.height
    blended = height // BLOCK if len({down for _, down in scan.factors}) > 1 else 0
    return max(0, units // across * height - blended)


def _complete_units(data: bytes, scan: Scan, total: int) -> int:
    """Return the number of units (minimum coded units, A.2) before the data ends or is damaged, up to `total`."""
    pairs = sorted({table for pair in scan.tables for table in pair})
    tables = np.stack([_code_table(table) for table in pairs])
    blocks = [
        [pairs.index(dc), pairs.index(ac)]
        for (dc, ac), (across, down) in zip(scan.tables, scan.factors, strict=True)
        for _ in range(across * down)
    ]
    units, each = 0, scan.restart or total
    for piece in RESTART.split(data.removesuffix(b"\xff")):
        expected = min(each, total - units)
        codes = np.frombuffer(piece.replace(b"\xff\0", b"\xff"), np.uint8)
        found = int(count_units(codes, np.array(blocks), tables, expected))
        units += found
        if found < expected or units >= total:
            break
    return units


def _code_table(table: bytes) -> npt.NDArray[np.int32]:
    """Return, for each value of the next 16 bits, 256 times the length of their code plus its symbol, or 0 (C.2)."""
    lookup = np.zeros(1 << 16, np.int32)
    at, code = 16, 0
    for length in range(1, 17):
        for symbol in table[at : at + table[length - 1]]:
            first = code << (16 - length)
            lookup[first : first + (1 << (16 - length))] = 256 * length + symbol
            code += 1
        at += table[length - 1]
        code <<= 1
    return lookup


@kernel
def count_units(
    data: npt.NDArray[np.uint8], blocks: npt.NDArray[np.int64], tables: npt.NDArray[np.int32], limit: int
) -> int:
    """Return the number of whole units in `data`, up to `limit`; `blocks` are the tables of each block of a unit."""
    bits = np.int64(0)  # the next bits of the data
    held, at = 0, 0  # their number, the next byte
    for unit in range(limit):
        for block in range(len(blocks)):
            index = 0  # of the next coefficient
            while index < 64:
                while held <= 40 and at < len(data):
                    bits = (bits << 8) | np.int64(data[at])
                    held += 8
                    at += 1
                ahead = bits >> (held - 16) if held >= 16 else bits << (16 - held)
                entry = np.int64(tables[blocks[block, 1 if index else 0], ahead & 0xFFFF])
                symbol = entry & 255
                extra = symbol & 15 if index else symbol
                used = int((entry >> 8) + extra)
                if entry < 256 or extra > 16 or used > held:
                    return unit
                held -= used
                bits &= (np.int64(1) << held) - 1
                if index == 0:
                    index = 1
                elif extra:
                    index += int(symbol >> 4) + 1
                elif symbol == 0xF0:  # 16 zeros
                    index += 16
                else:  # the rest of the block is zero
                    break
            if index > 64:
                return unit
    return limit
