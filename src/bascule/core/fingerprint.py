"""Identity of everything that is stored: a versioned hash of what can change the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from bascule.core.catalog import describe
from bascule.core.errors import RequestError

VERSION = 1
"""Raised whenever the same settings start to give different results, so that older records are not taken for new."""


def fingerprint(kind: str, *parts: Any) -> str:
    """A 16-digit name for the link `kind` with these settings (components or plain values) and input fingerprints."""
    text = json.dumps([VERSION, kind, *map(describe, parts)], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_digest(path: str, digest: str | None, *, what: str, place: str) -> str:
    """SHA-256 of a file named by a setting, so that other content under the same name is another configuration.

    Args:
        path: The file.
        digest: What it was before; None takes it as it is.
        what: What the setting calls it, for messages.
        place: The setting.

    Raises:
        RequestError: The file is missing, or is not the one `digest` was taken of.
    """
    try:
        today = file_digest(Path(path).expanduser())
    except OSError as error:
        kept = kept_of(path)
        if kept is not None and digest in (None, kept.digest):
            return kept.digest
        why = "it is a folder; give the file" if isinstance(error, IsADirectoryError) else error.strerror
        raise RequestError(f"cannot read the {place} {path!r}: {why}", place=(place,)) from error
    if digest not in (None, today):
        raise RequestError(f"{path!r} is not the {what} this was made with (its content changed)", place=(place,))
    return today


class Kept(NamedTuple):
    """What a record knows of a file that settings name."""

    digest: str
    copy: Path | None
    """A file of the record that holds the same; None where there is none."""


_KEPT: ContextVar[Mapping[str, Kept]] = ContextVar("kept", default={})  # noqa: B039  (never written to)


@contextmanager
def kept_files(files: Mapping[str, Kept]) -> Iterator[None]:
    """Inside the block, a file that is not there any more is what a record knows of it, by the name that it had."""
    token = _KEPT.set(files)
    try:
        yield
    finally:
        _KEPT.reset(token)


def kept_of(path: str) -> Kept | None:
    """What a record knows of a file that is not there any more; None where the file is there, or nobody knows it."""
    kept = _KEPT.get().get(path)
    return None if kept is None or Path(path).expanduser().is_file() else kept
