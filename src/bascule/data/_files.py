"""Reading files that others wrote: damage becomes one clear error, content becomes a digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bascule.core.errors import RequestError
from bascule.core.fingerprint import file_digest

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
