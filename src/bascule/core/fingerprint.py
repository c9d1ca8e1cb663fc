"""Identity of everything that is stored: a versioned hash of what can change the result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

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
        raise RequestError(f"cannot read the {place} {path!r}: {error.strerror}", place=(place,)) from error
    if digest not in (None, today):
        raise RequestError(f"{path!r} is not the {what} this was made with (its content changed)", place=(place,))
    return today
