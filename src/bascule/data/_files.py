"""Reading files that others wrote: damage becomes one clear error, content becomes a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bascule.core.errors import RequestError
from bascule.core.fingerprint import file_digest


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
