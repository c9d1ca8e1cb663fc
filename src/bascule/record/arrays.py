"""Arrays as `numpy.savez` keeps them, read from memory."""

from __future__ import annotations

import functools
import io
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = 8
"""Bytes that say `.npy` and the version of the format."""
_LENGTH = {1: 2, 2: 4}
"""By version, bytes that say how long the rest of the header is."""


def read_arrays(stored: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file, by name.

    As `numpy.load`, in half the time: it parses the header of every array as Python, and a run holds the same few
    headers thousands of times.

    Raises:
        ValueError, TypeError, zipfile.BadZipFile: It is none, or holds what is no plain array.
    """
    with zipfile.ZipFile(io.BytesIO(stored)) as archive:
        return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}


def _array(stored: bytes) -> NDArray[Any]:
    version = stored[6] if len(stored) > _MAGIC else 0
    start = _MAGIC + _LENGTH.get(version, 0)
    start += int.from_bytes(stored[_MAGIC:start], "little")
    shape, order, dtype = _header(stored[:start])
    return np.ndarray(shape, dtype, stored, start, order=order).copy(order="K")


@functools.lru_cache(maxsize=1024)
def _header(stored: bytes) -> tuple[tuple[int, ...], Any, np.dtype[Any]]:
    file = io.BytesIO(stored)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array of the format {version}")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which are not read")
    return shape, "F" if fortran else "C", dtype
