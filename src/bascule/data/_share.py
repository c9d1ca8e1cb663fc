"""Test images drawn from a set that does not say which are for tests."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bascule.core import rng
from bascule.core.errors import RequestError


def drawn_for_test(place: Path, labels: Tensor, classes: Sequence[str], share: float, lacking: str) -> Tensor:
    """Which images are the test set: of each class the same share, drawn by its name and size. Says so in a warning.

    Args:
        place: The set, for messages.
        labels: int64, shape (N,).
        classes: Names of the classes.
        share: Of each class, above 0.
        lacking: What would have said which are for tests.

    Returns:
        bool, shape (N,).

    Raises:
        RequestError: A class has a single image.
    """
    test = torch.zeros(len(labels), dtype=torch.bool)
    for label, name in enumerate(classes):
        places = (labels == label).nonzero().flatten()
        if len(places) == 1:
            raise RequestError(
                f"{place / name}: only one picture, and no {lacking} says which pictures are for tests; "
                "two of each class are needed"
            )
        order = torch.randperm(len(places), generator=rng.stream(0, "test-share", name, len(places)))
        size = min(max(1, round(share * len(places))), len(places) - 1)
        test[places[order[: max(size, 0)]]] = True
    problem = (
        f"{place}: no {lacking} says which pictures are for tests, so that {100 * share:.3g} % of each class, "
        f"drawn by a fixed seed, are the test set ({int(test.sum()):,} of {len(test):,} pictures)"
    )
    warnings.warn(problem, stacklevel=2)
    return test
