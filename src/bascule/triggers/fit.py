"""Whether a poison fits the data, told from what is known of them without their pictures."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.triggers.aims import NOWHERE, Aims
from bascule.triggers.contract import Trigger


class DataFacts(Protocol):
    """What is known of a source without its pictures; ids of None are 0, 1, ..."""

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height, width."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""

    @property
    def train_labels(self) -> Tensor:
        """int64, shape (N,)."""

    @property
    def test_labels(self) -> Tensor:
        """int64."""

    @property
    def train_ids(self) -> Tensor | None:
        """int64, ids of the training images."""

    @property
    def test_ids(self) -> Tensor | None:
        """int64, ids of the test images."""

    @property
    def left_out(self) -> Tensor | None:
        """int64, ids of training images that are not trained on; None of none."""


class Planted(Protocol):
    """What the two sorts of poison have in common where a test set is looked at."""

    @property
    def trigger_at_test(self) -> Trigger:
        """The trigger stamped on test images."""

    @property
    def target(self) -> int | None:
        """Label that it aims at; None where there are several."""

    def aims(self, classes: int) -> Aims | None:
        """Label that each class aims at; None where that is `target` for all others."""


def check_test(poison: Planted, facts: DataFacts, *place: str) -> None:
    """Refuse test images that the poison's trigger cannot stamp; `place` is its setting, where it is one."""
    aimed_at = NOWHERE if poison.target is None else poison.target
    ids = torch.arange(len(facts.test_labels)) if facts.test_ids is None else facts.test_ids
    try:
        poison.trigger_at_test.check(facts.size)
        poison.trigger_at_test.check_test(ids, facts.test_labels, aimed_at)
    except RequestError as error:
        raise error.at(*place) from None
