"""Decoding in a process of its own: a crash of a native decoder is an error of one line, not the end of the run.

The child reads the image and writes a line of JSON, then the pixels, to its standard output.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CHILD_BYTES", "decode_apart"]

OUT_OF_MEMORY = "out of memory"
"""Answer of a child whose decoder lacks memory."""

CHILD_BYTES = 60_000_000
"""Memory of the child besides the pixels: interpreter, numpy and the decoder (measured)."""


def decode_apart(
    path: Path, shape: tuple[int, ...], dtype: str, decode: functools.partial[npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Decode an image in a child process.

    Parameters
    ----------
    path : Path
        The image.
    shape, dtype
        What its header states: (height, width, channels), name of the type.
    decode : functools.partial
        A function at the top of a module, with arguments that JSON holds; ``decode(content)`` returns the pixels.

    Returns
    -------
    ndarray
        The pixels.

    Raises
    ------
    ValueError
        If the decoder fails or crashes, or returns something else than the header states.
    MemoryError
        If the decoder lacks memory.
    """
    function = decode.func
    asked = [str(path), function.__module__, function.__name__, json.dumps(decode.args)]
    command = [sys.executable, "-P", "-m", __name__, *asked]  # -P: nothing is imported from the working directory
    places = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    pixels = np.empty(shape, dtype)
    # in a session of its own, in which Ctrl-C does not end it: the run stops after what it has begun
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    ) as child:
        assert child.stdout is not None
        answer = json.loads(child.stdout.readline() or "{}")
        is_expected = answer == {"shape": list(shape), "dtype": dtype}
        is_whole = is_expected and _fill(pixels, child.stdout)
        child.stdout.close()  # a child that has more to write ends
    if answer.get("error") == OUT_OF_MEMORY:
        raise MemoryError
    if "error" in answer:
        raise ValueError(answer["error"])
    if answer and not is_expected:
        raise ValueError(f"it decodes to {answer}, its header states {shape} {dtype}")
    if not is_whole:
        raise ValueError(f"its decoder crashed ({_ending(child.returncode)})")
    return pixels


def _ending(status: int) -> str:
    """Return the name of the signal that ended a process, or its exit status."""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"status {status}"


def _fill(pixels: npt.NDArray[Any], stream: Any) -> bool:
    """Read the samples from a stream; return whether it had all of them."""
    rest = pixels.reshape(-1).view(np.uint8).data
    while len(rest) and (number := stream.readinto(rest)):
        rest = rest[number:]
    return not len(rest)


def _main(path: str, module: str, name: str, arguments: str) -> None:
    """Decode, as the child."""
    decode = getattr(importlib.import_module(module), name)
    out = sys.stdout.buffer
    try:
        pixels = np.ascontiguousarray(np.atleast_3d(decode(*json.loads(arguments), Path(path).read_bytes())))
    except MemoryError:
        out.write(json.dumps({"error": OUT_OF_MEMORY}).encode() + b"\n")
        return
    except Exception as error:  # imagecodecs has an error class per codec
        out.write(json.dumps({"error": str(error)}).encode() + b"\n")
        return
    out.write(json.dumps({"shape": pixels.shape, "dtype": pixels.dtype.name}).encode() + b"\n")
    out.write(pixels.reshape(-1).view(np.uint8).data)


if __name__ == "__main__":
    _main(*sys.argv[1:])
