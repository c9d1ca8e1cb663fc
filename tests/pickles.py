"""Pickles as the authors of CIFAR wrote them, with Python 2."""

from __future__ import annotations

import numpy as np


def python2_pickle(pixels: np.ndarray, **labels: list[int]) -> bytes:
    """The bytes Python 2 wrote for {"data": pixels, "labels": [...], ...} in protocol 2, as in the authors' files."""
    content = pixels.tobytes()
    return b"".join(
        (
            b"\x80\x02}(",
            b"U\x04data",
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR",
            b"(K\x01(J" + len(pixels).to_bytes(4, "little") + b"M\x00\x0ct",
            b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + len(content).to_bytes(4, "little") + content + b"tb",
            *(_python2_list(name, values) for name, values in labels.items()),
            b"u.",
        )
    )


def _python2_list(name: str, values: list[int]) -> bytes:
    key = b"U" + bytes([len(name)]) + name.encode()
    return key + b"](" + b"".join(b"K" + bytes([value]) for value in values) + b"e"
