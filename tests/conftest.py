"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # two threads on two busy cores wait for each other; tests are small


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data sets; a test that asks for it carries the mark `data`."""
    place = os.environ.get("BASCULE_DATA")
    if not place:
        pytest.skip("BASCULE_DATA is not set")
    return Path(place)
