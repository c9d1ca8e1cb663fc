"""Samples in tar files as WebDataset writes them: where each picture lies, and what its label is.

A sample is the members that follow each other and have one key: the path up to the first dot of the name; what comes
after that dot, in any case of letters, is the member's ending. Names that begin with `__` are the format's own.
Source: https://github.com/webdataset/webdataset, tariterators.py: base_plus_ext, group_by_keys.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bascule.core.errors import RequestError
from bascule.core.text import count
from bascule.data._files import GONE, reading
from bascule.data._remembered import Arrays, remembered, stated
from bascule.data.decode import ENDINGS

LABEL, JSON = "cls", "json"
"""Endings of the members that hold labels, in this order."""
JSON_KEYS = ("label", "cls", "class")
"""Keys of the label in JSON, in this order."""
_LARGEST = 2**20
"""Most bytes of a member that holds a label."""
_LONGEST = 256
"""Most characters of a label."""
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""How compressed files begin."""
_LEFT = {
    "link": ("link", "links"),
    "other": ("member that is no file", "members that are no files"),
    "bare": ("file without a key or an ending", "files without a key or an ending"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """The samples of the tar files of one split, in the order of the files and of the members in them."""

    files: tuple[Path, ...]
    shard: NDArray[np.int32]
    """Which of the files each picture is in, shape (N,)."""
    offset: NDArray[np.int64]
    """Byte of the file where it begins."""
    size: NDArray[np.int64]
    """Bytes of it."""
    names: tuple[str, ...]
    """The pictures' members, by their whole names."""
    texts: NDArray[np.str_]
    """The labels that there are, as they are written."""
    label: NDArray[np.int32]
    """Which of these each picture has, shape (N,)."""

    def __len__(self) -> int:
        return len(self.names)

    def take(self, places: Sequence[int]) -> Sequence[bytes]:
        """The pictures at these positions, read one by one when each is asked for."""
        return _Read(self, places)

    def heads(self, places: Sequence[int]) -> Sequence[IO[bytes]]:
        """The same as open files."""
        return _Opened(self, places)

    def name(self, place: int) -> str:
        """What to call a picture in messages."""
        return f"{self.files[self.shard[place]]}: {self.names[place]}"


class _Read(Sequence[Any]):
    """Pictures that are read when they are asked for."""

    def __init__(self, samples: Samples, places: Sequence[int]) -> None:
        self._samples, self._places = samples, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: Any) -> Any:
        place = self._places[i]
        with _named_by_others(), self._window(place) as file:
            content = file.read()
        if len(content) < self._samples.size[place]:
            raise RequestError("the tar file is shorter than it was when it was gone through; put it back")
        return content

    def _window(self, place: int) -> IO[bytes]:
        of = self._samples
        return io.BufferedReader(_Window(of.files[of.shard[place]], int(of.offset[place]), int(of.size[place])))


@contextmanager
def _named_by_others() -> Iterator[None]:
    """What the system says of a file, as one RequestError without its name."""
    try:
        yield
    except FileNotFoundError as error:
        raise RequestError(GONE) from error
    except OSError as error:
        raise RequestError(f"the tar file cannot be read ({error.strerror})") from error


class _Opened(_Read):
    def __getitem__(self, i: Any) -> Any:
        with _named_by_others():
            return self._window(self._places[i])


class _Window(io.RawIOBase):
    """A member of a tar file, as a file."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = io.FileIO(path)
        self._start, self._size, self._at = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        with memoryview(buffer) as view:
            length = self._file.readinto(view[: max(0, min(len(view), self._size - self._at))])
        self._at += length
        return length

    def close(self) -> None:
        self._file.close()
        super().close()


def read_samples(files: Sequence[Path], *, image: str | None, label: str | None) -> Samples:
    """Where the pictures of these tar files lie. What is left out is said in a warning.

    Large files are gone through once, and what was found is kept until one of them changes.

    Args:
        files: Tar files, not compressed.
        image: Ending of the pictures; None: of whatever is one.
        label: Ending of the labels; `json.KEY`: an entry of the JSON there; None: `cls`, or else an entry of JSON.

    Raises:
        RequestError: A file is damaged or compressed, or a sample is not one picture with its label.
    """
    found = remembered(f"samples {image} {label}", stated(files), lambda: _find_out(files, image, label))
    left = Counter(dict(zip(_LEFT, found["left"].tolist(), strict=True)))
    if parts := [count(number, *_LEFT[kind]) for kind, number in left.items() if number]:
        warnings.warn(f"{files[0].parent}: left out in tar files: {'; '.join(parts)}", stacklevel=2)
    if open_ended := found["open_ended"].tolist():
        names = ", ".join(files[place].name for place in open_ended[:8])
        problem = f"{files[0].parent}: no end mark in {names}: perhaps cut short; what is there is used"
        warnings.warn(problem, stacklevel=2)
    if empty := np.setdiff1d(np.arange(len(files)), found["shard"]).tolist():
        problem = f"{files[0].parent}: no pictures in {', '.join(files[place].name for place in empty[:8])}"
        warnings.warn(problem, stacklevel=2)
    return Samples(
        files=tuple(files),
        shard=found["shard"],
        offset=found["offset"],
        size=found["size"],
        names=tuple(found["names"].tobytes().decode(errors="surrogateescape").split("\0")),
        texts=found["texts"],
        label=found["label"],
    )


def _find_out(files: Sequence[Path], image: str | None, label: str | None) -> Arrays:
    left: Counter[str] = Counter()
    rows: list[_Row] = []
    shards: list[int] = []
    open_ended = []
    for number, path in enumerate(files):
        with reading(path, "tar file"), path.open("rb") as file:
            _refuse_packed(path, file)
            shard = _Shard(path, file, left)
            rows += (sample.row(image, label) for sample in shard.samples())
            if shard.is_open_ended:
                open_ended.append(number)
        shards += [number] * (len(rows) - len(shards))
    if not rows:
        raise RequestError(f"{files[0].parent}: no pictures in {count(len(files), 'tar file')}")
    texts: dict[str, int] = {}
    labels = [texts.setdefault(row.label, len(texts)) for row in rows]
    names = "\0".join(row.name for row in rows).encode(errors="surrogateescape")
    return {
        "shard": np.array(shards, np.int32),
        "offset": np.array([row.offset for row in rows], np.int64),
        "size": np.array([row.size for row in rows], np.int64),
        "names": np.frombuffer(names, np.uint8),
        "texts": np.array(list(texts), np.str_),
        "label": np.array(labels, np.int32),
        "left": np.array([left[kind] for kind in _LEFT]),
        "open_ended": np.array(open_ended, np.int64),
    }


def _refuse_packed(path: Path, file: IO[bytes]) -> None:
    start = os.pread(file.fileno(), 6, 0)
    for magic, name in _PACKED.items():
        if start.startswith(magic):
            raise RequestError(
                f"{path}: compressed ({name}), so that no picture can be read without all before it; unpack it to a "
                ".tar, which is hardly larger: pictures are compressed already"
            )


class _Member(NamedTuple):
    name: str
    offset: int
    size: int


class _Row(NamedTuple):
    name: str
    offset: int
    size: int
    label: str


class _Shard:
    """One tar file."""

    def __init__(self, path: Path, file: IO[bytes], left: Counter[str]) -> None:
        self._path, self._file, self._left = path, file, left
        self.is_open_ended = False

    def samples(self) -> Iterator[_Sample]:
        """The samples in order."""
        sample: _Sample | None = None
        seen: set[str] = set()
        for key, ending, member in self._members():
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                if key in seen:
                    raise RequestError(
                        f"{self._path}: the key {key!r} is there twice; the files of a sample must follow each other"
                    )
                seen.add(key)
                sample = _Sample(self._path, self._file, key)
            if ending in sample.members:
                raise RequestError(f"{self._path}: {member.name} is there twice")
            sample.members[ending] = member
        if sample is not None:
            yield sample

    def _members(self) -> Iterator[tuple[str, str, _Member]]:
        """Key, ending and place of each file."""
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            while (one := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
                if one.isdir() or one.name.startswith("__"):
                    continue
                if not one.isreg() or one.issparse():
                    self._left["link" if one.islnk() or one.issym() else "other"] += 1
                    continue
                folder, slash, base = one.name.rpartition("/")
                stem, _, ending = base.partition(".")
                if not stem or not ending or "\0" in one.name:
                    self._left["bare"] += 1
                    continue
                yield f"{folder}{slash}{stem}", ending.lower(), _Member(one.name, one.offset_data, one.size)
            self._check_end(tar.offset)

    def _check_end(self, offset: int) -> None:
        """`tarfile` takes a damaged header for the end."""
        last = os.pread(self._file.fileno(), tarfile.BLOCKSIZE, offset)
        if last.strip(b"\0"):
            raise RequestError(f"{self._path}: damaged: no header of a file at byte {offset:,}. Get the file again.")
        self.is_open_ended = len(last) < tarfile.BLOCKSIZE


class _Sample:
    """The members that share a key, by their endings."""

    def __init__(self, path: Path, file: IO[bytes], key: str) -> None:
        self._path, self._file, self.key = path, file, key
        self.members: dict[str, _Member] = {}

    def row(self, image: str | None, label: str | None) -> _Row:
        """Its picture and its label.

        Raises:
            RequestError: One of the two is missing, or there are several pictures.
        """
        pictures = [ending for ending in self.members if ending == image or (image is None and _picture_ending(ending))]
        if len(pictures) != 1:
            what = "several pictures: set `image` to the ending of one" if pictures else "no picture"
            raise self._wrong(f"has {what}")
        return _Row(*self.members[pictures[0]], self._label(label))

    def _label(self, label: str | None) -> str:
        ending, _, key = (label or "").partition(".")
        if label is None:
            ending = next((one for one in (LABEL, JSON) if one in self.members), LABEL)
        if ending not in self.members:
            raise self._wrong(f"has no label, which would be {self.key}.{ending}")
        member = self.members[ending]
        if member.size > _LARGEST:
            raise self._wrong(f"has a label of {member.size:,} bytes")
        content = os.pread(self._file.fileno(), member.size, member.offset)
        try:
            text = content.decode()
            value = _in_json(json.loads(text), key) if ending == JSON else text.strip()
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"has a label that cannot be read ({error})") from error
        if isinstance(value, bool) or not isinstance(value, (int, str)) or len(str(value)) > _LONGEST:
            keys = f"an entry {key or ' or '.join(JSON_KEYS)} that is " if ending == JSON else ""
            raise self._wrong(f"has no label: {member.name} must hold {keys}a number or the name of a class")
        return str(value)

    def _wrong(self, problem: str) -> RequestError:
        return RequestError(f"{self._path}: the sample {self.key!r} {problem}; its files are {', '.join(self.members)}")


def _picture_ending(ending: str) -> bool:
    return f".{ending.rpartition('.')[2]}" in ENDINGS


def _in_json(value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        return None if key else value
    return value.get(key) if key else next((value[name] for name in JSON_KEYS if name in value), None)
