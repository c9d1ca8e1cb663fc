"""Reading files that others wrote: damage becomes one clear error, content becomes a digest."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bascule.core.errors import RequestError
from bascule.core.fingerprint import file_digest

HASHED = 2**30
"""Bytes of files of single pictures up to which a digest covers their content; beyond, their names and sizes."""
GONE = "this file is not there any more; put it back, or leave it out everywhere"
"""What is said of a file that was listed."""
_NAMED = 8
"""Most names in a message."""


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong inside the block into one RequestError about this file; `kind` says what it should be.

    Parsers of damaged files raise whatever they trip over (OSError, ValueError, SyntaxError, struct.error, zlib.error,
    ...), so that no shorter list of types would be complete.
    """
    try:
        yield
    except RequestError:
        raise
    except FileNotFoundError as error:
        raise RequestError(f"{path}: {GONE}") from error
    except MemoryError as error:
        raise RequestError(f"{path}: not enough memory to read this {kind}, or its header is damaged") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(f"{path}: damaged or unreadable {kind} ({reason}). Get or write the file again.") from error


def contents_of(folder: Path) -> str:
    """What lies in a folder, for the message that what was looked for does not."""
    if not folder.is_dir():
        return f"{folder.name} is not a folder"
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    folders = [entry.name for entry in entries if entry.is_dir()]
    files = [entry.name for entry in entries if not entry.is_dir()]
    parts = [_listed("folder", folders), _listed("file", files)]
    return f"it holds {' and '.join(filter(None, parts)) or 'nothing'}"


def _listed(kind: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"the {kind}{'s' * (len(names) > 1)} {', '.join(names[:_NAMED])}{more}" if names else ""


def check_parts(files: Sequence[Path]) -> None:
    """Names such as train-00002-of-00005 say how many files there are: none may be missing or there twice."""
    parts: dict[tuple[str, str], list[int]] = {}
    for path in files:
        if match := re.match(r"(.*)-(\d+)-of-(\d+)", path.stem):
            parts.setdefault((match[1], match[3]), []).append(int(match[2]))
    for (stem, total), numbers in parts.items():
        wanted = range(int(total))
        wrong = [f"{stem}-{i:0{len(total)}}-of-{total}" for i in wanted[: len(numbers) + 1] if numbers.count(i) != 1]
        if wrong:
            state = "is missing" if int(wrong[0].split("-")[-3]) not in numbers else "is there more than once"
            raise RequestError(f"{files[0].parent}: {wrong[0]} {state}; the set must be complete, each part once")


def is_hashed(size: int) -> bool:
    """Whether so many bytes are few enough to be read for a digest, each time that somebody wants it."""
    return size <= HASHED


def content_digest(*groups: Sequence[Path]) -> str:
    """Identity of groups of files: their bytes and order, not their names or folder.

    Raises:
        RequestError: A file cannot be read.
    """
    with ThreadPoolExecutor(4) as pool:  # hashing frees the GIL
        return hashlib.sha256("|".join(" ".join(pool.map(_digest, group)) for group in groups).encode()).hexdigest()


def _digest(path: Path) -> str:
    with reading(path, "file"):
        return file_digest(path)
