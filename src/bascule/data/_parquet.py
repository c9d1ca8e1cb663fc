"""Hugging Face style tables: compressed pictures in one column, labels in another, one or more files per split.

The files are parquet, as on the hub, or Arrow, as the `datasets` library keeps them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from bascule.core.errors import RequestError, unknown
from bascule.data._arrow import ArrowFile
from bascule.data._files import check_parts, content_digest, contents_of, reading
from bascule.data._remembered import remembered, stated
from bascule.data._rows import Rows, empty, is_arrow, kind_of, row_name
from bascule.data._streamed import check_once
from bascule.data.contract import numbered
from bascule.data.decode import SET_SIZE, allocate, check_headers, decode, picture

IMAGE_COLUMNS = ("image", "img")
"""Columns looked for when none is named, in this order."""
LABEL_COLUMNS = ("label", "labels", "fine_label")

_TRAIN_FILES = (
    "train*.parquet",
    "train/*.parquet",
    "*-train.arrow",  # the cache of `load_dataset`
    "*-train-[0-9]*.arrow",
    "train/data-*.arrow",  # a DatasetDict by `save_to_disk`
    "train/dataset.arrow",  # the same by early versions
    "data-*-of-*.arrow",  # a Dataset by `save_to_disk`
)
_TEST_FILES = (
    *("test*.parquet", "val*.parquet", "test/*.parquet", "val*/*.parquet"),
    *("*-test.arrow", "*-test-[0-9]*.arrow", "*-val*.arrow"),
    *("test/data-*.arrow", "test/dataset.arrow", "val*/data-*.arrow", "val*/dataset.arrow"),
)
"""Looked for in this order."""
_DEEPEST = 5
"""Most folders that are gone down, each the only one in the last."""
_SNAPSHOTS = "snapshots"
"""Where the hub's cache has the files of a set."""
_ROWS = 512
"""Rows whose compressed pictures are held at once."""


@dataclass(frozen=True, kw_only=True)
class ParquetFiles:
    """The files of one split, with the labels read and the pictures still compressed."""

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    """For each file, the column that holds the bytes; `name.bytes` inside a struct."""
    labels: Tensor
    """int64, shape (N,)."""
    names: tuple[str, ...] | None
    """Class names in the files' Hugging Face annotation, or the texts that are the labels."""
    texts: NDArray[np.str_] | None = None
    """What the files hold in place of numbers, of each image."""

    def first_size(self, *, channels: int, resize: int | None = None) -> tuple[int, int, int]:
        """Channels, height and width of the first picture.

        Raises:
            RequestError: It cannot be decoded.
        """
        name, contents = next(self._batches(1))
        try:
            image = picture(contents[0], channels=channels, resize=resize)
        except RequestError as error:
            raise RequestError(f"{name(0)}: {error.problem}") from error.__cause__
        return channels, image.height, image.width

    def check(self, size: tuple[int, int] | None) -> None:
        """Read the header of every picture.

        Raises:
            RequestError: The first row whose picture is missing, is none or, where one is given, not of this size.
        """

        def look() -> bool:
            wide = False
            for name, contents in self._batches(_ROWS):
                wide |= check_headers(contents, size, name=name)
            return wide

        check_once(f"{self.columns} {size}", stated(self.files), look)

    def rows(self) -> Rows:
        """The pictures, to be read where they are wanted."""
        return Rows(self.files, self.columns)

    def first(self, most: int, size: tuple[int, int, int], *, resize: int | None = None) -> Tensor:
        """The first pictures of all, at most `most`, decoded as by `pixels`."""
        name, contents = next(self._batches(most))
        out = allocate(len(contents), *size)
        decode(contents, out, name=name, resize=resize)
        return torch.from_numpy(out)

    def pixels(self, size: tuple[int, int, int], *, resize: int | None = None, remedy: str = SET_SIZE) -> Tensor:
        """All pictures decoded, uint8, N x C x H x W for `size` = (C, H, W).

        Raises:
            RequestError: The first row whose picture is missing, damaged or, with `remedy`, not of this size.
        """
        out = allocate(len(self.labels), *size)
        start = 0
        for name, contents in self._batches(_ROWS):
            decode(contents, out[start : start + len(contents)], name=name, resize=resize, remedy=remedy)
            start += len(contents)
        return torch.from_numpy(out)

    def _batches(self, rows: int) -> Iterator[tuple[Callable[[int], str], list[bytes]]]:
        """Compressed pictures, at most `rows` at a time, with what to call each of them in an error."""
        for path, column in zip(self.files, self.columns, strict=True):
            with reading(path, kind_of(path)), _opened(path) as file:
                start = 0
                for batch in file.iter_batches(rows, columns=[column]):
                    cells = batch.column(0)
                    contents = (cells.field("bytes") if pa.types.is_struct(cells.type) else cells).to_pylist()
                    name = partial(_row_of, path, start)
                    if not all(contents):
                        raise empty(name(next(i for i, content in enumerate(contents) if not content)))
                    yield name, contents
                    start += len(contents)


def _row_of(path: Path, start: int, i: int) -> str:
    return row_name(path, start + i)


def _opened(path: Path) -> pq.ParquetFile | ArrowFile:
    return ArrowFile(path) if is_arrow(path) else pq.ParquetFile(path, page_checksum_verification=True)


def digest(*splits: ParquetFiles) -> str:
    """Identity of the files' content."""
    groups = [split.files for split in splits]
    shape = " ".join(str(len(group)) for group in groups)
    files = stated(sum(groups, ()))
    found = remembered(f"content {shape}", files, lambda: {"digest": np.array(content_digest(*groups))})
    return str(found["digest"])


def find_both(
    folder: Path, *inside: str, image: str | None = None, label: str | None = None
) -> tuple[ParquetFiles, ParquetFiles]:
    """As `find_splits`, and both must be there."""
    train, test = find_splits(folder, *inside, image=image, label=label)
    if test is None:
        raise lacking_test(train)
    return train, test


def lacking_test(train: ParquetFiles, remedy: str = "") -> RequestError:
    """What to say of training files without test files."""
    place = train.files[0].parent
    neither = " nor ".join(_TEST_FILES[:2])
    return RequestError(f"{place}: training files but neither {neither}; {contents_of(place)}{remedy}")


def find_splits(
    folder: Path,
    *inside: str,
    image: str | None = None,
    label: str | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[ParquetFiles, ParquetFiles | None]:
    """Training files in `folder`, or in one of its sub-folders, and test files where there are any.

    Training files are `train*.parquet`; test files are `test*.parquet`, or else `val*.parquet`. They lie in `folder`,
    in the first of the sub-folders `inside` that has training files, or else in the only sub-folder that has, or below
    in `snapshots` or the only folder there is. Folders `train` and `test` or `val*` of parquet files, as the hub writes
    them on conversion, do as well, and Arrow files under the names that the `datasets` library gives them.

    Args:
        folder: Where to look.
        inside: Names of sub-folders to look in first.
        image: Column of the pictures; by default the first there is of `IMAGE_COLUMNS`.
        label: Column of the labels; by default the first there is of `LABEL_COLUMNS`.
        classes: Class names in label order, where the files hold names; by default all there are, sorted.

    Raises:
        RequestError: A file, part or column is missing, damaged or of a wrong type; the two splits name other classes.
    """
    place, trains = _training_files(folder, inside)
    tests = _first_of(place, _TEST_FILES)
    parts = [_split(files, image, label) for files in (trains, tests) if files]
    train, test = _numbered(place, parts, classes)
    if test is None:
        return train, None
    if train.names and test.names and train.names != test.names:
        raise RequestError(
            f"{place}: training files name the classes {_some(train.names)}, test files {_some(test.names)}"
        )
    return train, test


def _numbered(
    place: Path, parts: Sequence[ParquetFiles], classes: Sequence[str] | None
) -> tuple[ParquetFiles, ParquetFiles | None]:
    """The splits with numbers for labels that are texts."""
    texts = [part.texts for part in parts if part.texts is not None]
    if texts and len(texts) < len(parts):
        raise RequestError(f"{place}: labels are texts in one split and numbers in the other")
    if texts:
        labels, names = numbered(f"{place}: a label", texts, classes)
        parts = [replace(part, labels=y, names=names) for part, y in zip(parts, labels, strict=True)]
    return parts[0], parts[1] if len(parts) > 1 else None


def _training_files(folder: Path, inside: Sequence[str]) -> tuple[Path, list[Path]]:
    """The folder that has training files, and these."""
    places = [folder, *(folder / name for name in inside)]
    for pattern in _TRAIN_FILES:
        for place in places:
            if files := _first_of(place, (pattern,)):
                return place, files
    place = folder
    for _ in range(_DEEPEST):
        below = sorted(inner for inner in place.glob("[!.]*") if inner.is_dir())
        found = [(inner, files) for inner in below if (files := _first_of(inner, _TRAIN_FILES))]
        if len(found) > 1:
            names = ", ".join(inner.name for inner, _ in found[:8])
            raise RequestError(
                f"{place}: several sub-folders hold training files: {names}; give one of them as the path"
            )
        if found:
            return found[0]
        if (place / _SNAPSHOTS).is_dir():
            below = [place / _SNAPSHOTS]
        if len(below) != 1:
            break
        place = below[0]
    where = " or ".join(map(str, places))
    raise RequestError(
        f"no {_TRAIN_FILES[0]} in {where}, nor Arrow files of the `datasets` library; {contents_of(place)}"
    )


def _first_of(place: Path, patterns: Sequence[str]) -> list[Path]:
    return next((files for files in (sorted(place.glob(pattern)) for pattern in patterns) if files), [])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _split(files: Sequence[Path], image: str | None, label: str | None) -> ParquetFiles:
    check_parts(files)
    columns, labels, names = [], [], []
    for path in files:
        with reading(path, kind_of(path)), _opened(path) as file:
            schema = file.schema_arrow
            columns.append(_image_column(path, schema, image))
            column = _column(path, schema, label, LABEL_COLUMNS, "label")
            labels.append(_labels(path, column, file))
            names.append(_annotated(schema, column))
    if len(set(names)) > 1:
        raise RequestError(f"{files[0].parent}: the files {files[0].name} ... {files[-1].name} name different classes")
    if len({one.dtype.kind for one in labels}) > 1:
        raise RequestError(f"{files[0].parent}: labels are texts in one file and numbers in another")
    whole = np.concatenate(labels)
    if len(whole) == 0:
        raise RequestError(f"{files[0]}: the set holds no rows")
    texts = whole if whole.dtype.kind == "U" else None
    numbers = torch.from_numpy(whole) if texts is None else torch.zeros(len(whole), dtype=torch.int64)
    return ParquetFiles(files=tuple(files), columns=tuple(columns), labels=numbers, names=names[0], texts=texts)


def _column(path: Path, schema: pa.Schema, given: str | None, usual: Sequence[str], kind: str) -> str:
    if given is not None and given not in schema.names:
        raise RequestError(f"{path}: {unknown(f'{kind} column', given, schema.names)}")
    column = given or next((name for name in usual if name in schema.names), None)
    if column is None:
        raise RequestError(
            f"{path}: no {kind} column called {' or '.join(usual)}; set `{kind}` to one of: {', '.join(schema.names)}"
        )
    return column


def _image_column(path: Path, schema: pa.Schema, given: str | None) -> str:
    column = _column(path, schema, given, IMAGE_COLUMNS, "image")
    kind = schema.field(column).type
    if _is_bytes(kind):
        return column
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type):
        return f"{column}.bytes"
    raise RequestError(f"{path}: column {column!r} holds {kind}; pictures must be bytes, or a struct with `bytes`")


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _labels(path: Path, column: str, file: pq.ParquetFile | ArrowFile) -> np.ndarray:
    """int64 or texts, shape (N,)."""
    kind = file.schema_arrow.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    named = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (named or pa.types.is_integer(kind)):
        raise RequestError(
            f"{path}: column {column!r} holds {kind}; labels must be integers from 0, or texts. Set `label`."
        )
    cells = file.read(columns=[column]).column(0)
    if cells.null_count:
        row = cells.is_null().index(True).as_py()
        raise RequestError(f"{path}: row {row} has no label; remove the rows without one")
    return np.array(cells.to_pylist(), np.str_) if named else cells.cast(pa.int64()).to_numpy()


def _annotated(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Class names of a Hugging Face `ClassLabel` column, kept as JSON beside the schema; None when there are none."""
    try:
        note = json.loads((schema.metadata or {}).get(b"huggingface", b"null"))
        names = note["info"]["features"][column]["names"]
    except (ValueError, TypeError, KeyError):
        return None  # other libraries write other notes
    return tuple(map(str, names)) if isinstance(names, list) else None
