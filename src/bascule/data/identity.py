"""Which images a result is about, wherever they lie."""

from __future__ import annotations

from typing import Any

from bascule.core.catalog import describe
from bascule.core.fingerprint import fingerprint
from bascule.data.contract import Facts, Source


def content_settings(source: Source) -> dict[str, Any]:
    """Settings of a source that change what is read; where it lies does not, its digest says what it holds."""
    return {key: value for key, value in describe(source).items() if key != "path"}


def test_identity(source: Source, facts: Facts) -> str:
    """Identity of the test images of a source."""
    return fingerprint("test", facts.digest, content_settings(source))
