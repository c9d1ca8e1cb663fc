"""Lists that say which class each picture of a folder without class folders has."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from bascule.core.errors import RequestError
from bascule.data._files import reading

USUAL = "val_annotations.txt (Tiny-ImageNet), GT-final_test.csv (GTSRB) or labels.csv"
"""Names of such lists, for messages."""

_OWN = ("gt-final_test.csv", "{}.csv", "{}_labels.csv")
"""Names looked for, in any case of letters, beside the pictures and above; {} is the split's."""
_BESIDE = ("val_annotations.txt", *_OWN, "labels.csv", "annotations.csv")
"""Names looked for beside the pictures."""
_FILES = ("filename", "file_name", "file", "path", "image", "image_path")
"""What the column of the files is called."""
_CLASSES = ("classid", "class_id", "class", "class_name", "label")
"""What the column of the classes is called."""
_LARGEST = 2**28
"""Most bytes of a list; that of a million pictures has a tenth of it."""


def find_list(split: str, beside: Iterable[Path], above: Iterable[Path], outside: Path) -> Path | None:
    """The first list of labels beside the pictures of a split, in the folders above, or around the set; None: no list.

    Args:
        split: Name of the split's folder.
        beside: Folders of the pictures.
        above: Folders above, up to the set's own.
        outside: The folder that the set lies in. GTSRB is often unpacked with its list there.
    """
    for places, names in ((beside, _BESIDE), (above, _OWN), ((outside,), _OWN[:1])):
        for place in places:
            with reading(place, "folder"):
                files = {path.name.lower(): path for path in sorted(place.iterdir()) if path.is_file()}
            found = [files[name.format(split.lower())] for name in names if name.format(split.lower()) in files]
            if found:
                return found[0]
    return None


def read_list(path: Path) -> dict[str, str]:
    """Name of each picture, without its folder, and the class that the list says.

    A list has columns with `;`, `,` or tabs between them and a header that names those of the files and the classes;
    one that ends in `.txt` has no header and begins with these two.

    Raises:
        RequestError: It cannot be read, has no such columns, or names a picture twice.
    """
    with reading(path, "list of labels"):
        if path.stat().st_size > _LARGEST:
            raise RequestError(f"{path}: {path.stat().st_size:,} bytes, far more than a list of labels has")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        between = max(";,\t", key=lines[0].count) if lines else ","
        rows = [row for row in csv.reader(lines, delimiter=between) if row]
        first, second = (0, 1) if path.suffix.lower() == ".txt" else _columns(path, rows.pop(0) if rows else [])
        found: dict[str, str] = {}
        for number, row in enumerate(rows, start=1):
            if len(row) <= max(first, second):
                raise RequestError(f"{path}: entry {number} has {len(row)} columns, too few: {', '.join(row)[:80]}")
            name = PurePosixPath(row[first].strip().replace("\\", "/")).name
            if name in found:
                raise RequestError(f"{path}: {name} is there twice")
            found[name] = row[second].strip()
    return found


def _columns(path: Path, header: Sequence[str]) -> tuple[int, int]:
    names = [name.strip().lower() for name in header]
    places = [next((names.index(name) for name in usual if name in names), -1) for usual in (_FILES, _CLASSES)]
    if min(places) < 0:
        raise RequestError(
            f"{path}: needs a column {_FILES[0]} and a column ClassId or {_CLASSES[-1]}; "
            f"its columns are {', '.join(header) or 'none'}"
        )
    return places[0], places[1]


def number_of(path: Path, name: str, numbers: Mapping[str, int]) -> int:
    """The number of a class that a list names, among `numbers` by name; `7` is also what is called `00007` there.

    Raises:
        RequestError: There is no such class.
    """
    if name in numbers:
        return numbers[name]
    if name.isascii() and name.isdigit():
        for known, number in numbers.items():
            if known.isascii() and known.isdigit() and int(known) == int(name):
                return number
    some = ", ".join(list(numbers)[:8]) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
    raise RequestError(f"{path}: names the class {name!r}; the training pictures have {some}")
