"""Arrays out of pickles from outside, without running anything they name.

A pickle is a program that may call whatever it names. Here it can name only what NumPy wrote for an array, and even
these names lead to the stand-ins below, never to NumPy itself: a crafted array state cannot reach its memory.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from bascule.core.errors import RequestError
from bascule.data._files import reading


class _Dtype:
    """Stands in for `numpy.dtype`; remembers what was asked for."""

    code: object = None

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment, which single bytes do not have."""


class _Array:
    """Stands in for `numpy.ndarray` and the function that rebuilds one; holds an array of bytes."""

    value: np.ndarray | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", b"u1", "|u1", b"|u1"):
            raise ValueError("an array that is not of unsigned bytes")
        self.value = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _encode(text: object, encoding: object) -> bytes:
    """As Python 3 writes bytes with protocol 2: a text whose characters are the bytes."""
    if type(text) is not str or encoding not in ("latin1", b"latin1"):
        raise ValueError("an encoding that is not of bytes")
    return text.encode("latin1")


_ALLOWED = {
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise RequestError(
                f"{self.path}: refused, because it asks for {module}.{name}, which a file of images does not need and "
                "which may run code. Get the file from its authors."
            ) from None


def load_dict(content: bytes, path: Path) -> dict[Any, Any]:
    """The dictionary in a pickle: plain containers, numbers, texts (from Python 2: bytes) and uint8 arrays (read-only).

    Args:
        content: The pickle.
        path: What to call it in an error.

    Raises:
        RequestError: It is damaged, no dictionary, or names anything that is not needed for this.
    """
    with reading(path, "pickle"):
        loaded = _Unpickler(content, path).load()
        if not isinstance(loaded, dict):
            raise RequestError(f"{path}: a dictionary is expected, found {type(loaded).__name__}")
        return {key: item.value if isinstance(item, _Array) else item for key, item in loaded.items()}
