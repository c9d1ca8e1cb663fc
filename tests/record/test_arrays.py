"""Arrays of findings: as NumPy reads them."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from bascule.record.arrays import read_arrays

ARRAYS = {
    "floats": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::3],
    "big endian": np.arange(4, dtype=">i4"),
    "text": np.array("héé"),
    "number": np.array(3),
    "flags": np.array([True, False]),
    "empty": np.empty((2, 0, 4)),
}


def stored(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_arrays_are_those_that_numpy_reads() -> None:
    content = stored(**ARRAYS)
    found = read_arrays(content)
    with np.load(io.BytesIO(content)) as known:
        assert list(found) == known.files
        for name in known.files:
            assert found[name].dtype == known[name].dtype
            assert found[name].flags.writeable
            np.testing.assert_array_equal(found[name], known[name])


def test_python_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="Python objects"):
        read_arrays(stored(array=np.array([{}], dtype=object)))


@pytest.mark.parametrize("content", [b"", b"PK", stored(array=np.arange(9))[:-30]])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    with pytest.raises(zipfile.BadZipFile):
        read_arrays(content)


@pytest.mark.parametrize("member", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x76\x00{'descr'", b"\x93NUMPY\x09\x00"])
def test_what_is_no_array_is_refused(member: bytes) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("array.npy", member)
    with pytest.raises(ValueError):  # noqa: PT011 - NumPy's own words
        read_arrays(file.getvalue())


def test_an_array_that_is_shorter_than_it_says_is_refused() -> None:
    whole = io.BytesIO()
    np.save(whole, np.arange(9))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("array.npy", whole.getvalue()[:-8])
    with pytest.raises(TypeError):
        read_arrays(file.getvalue())


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_array_that_is_not_what_was_packed_is_refused(packing: int) -> None:
    """The number seven was packed; an eight lies there, with the sum of the seven."""
    whole = io.BytesIO()
    np.save(whole, np.array(7))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        archive.writestr("array.npy", whole.getvalue())
        sums = [entry.CRC for entry in archive.infolist()]
    content = file.getvalue()
    assert read_arrays(content)["array"] == 7
    other = content.replace(sums[0].to_bytes(4, "little"), (sums[0] ^ 1).to_bytes(4, "little"))
    with pytest.raises(zipfile.BadZipFile, match="not what was packed"):
        read_arrays(other)


def test_an_archive_packed_in_another_way_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("array.npy", b"")
    with pytest.raises(zipfile.BadZipFile, match="packed in an unknown way"):
        read_arrays(file.getvalue())
