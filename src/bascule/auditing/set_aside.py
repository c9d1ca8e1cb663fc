"""Test images for data that have none of their own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bascule.data.contract import Source


def with_test(source: Source, given: dict[str, Any], roots: Sequence[Path], share: float) -> tuple[Source, int]:
    """The source with this share of each class as test images, where nobody gave it a split; and how many these are.

    Args:
        source: The data.
        given: Its settings as they were given: a `test_share` among them stays.
        roots: Folders searched for data.
        share: Of each class.

    Returns:
        The source as it is and 0 where it has test images, or can draw none.
    """
    if "test_share" in given or "test_share" not in {field.name for field in fields(source)}:
        return source, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one of the two, which is not used
        few, many = (_sharing(source, share).facts(roots) for share in (share, share / 2))
    if len(few.test_labels) == len(many.test_labels) and len(few.train_labels) == len(many.train_labels):
        return source, 0
    return _sharing(source, share), len(few.test_labels)


def _sharing(source: Source, share: float) -> Source:
    changed: dict[str, Any] = {"test_share": share}
    return replace(source, **changed)
