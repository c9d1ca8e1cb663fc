"""What tests of several sources use."""

from __future__ import annotations

from pathlib import Path

import pytest

from bascule.data import _files, _remembered, _streamed, contract


@pytest.fixture(params=["in memory", "streamed"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways a split can be held."""
    if request.param == "streamed":
        monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    return request.param


@pytest.fixture
def large(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files below `root` count as large: not hashed, decoded on demand, and what is found in them remembered."""
    monkeypatch.setattr(_files, "HASHED", 0)
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    monkeypatch.setattr(_remembered, "SETTLED", 0)
    monkeypatch.setattr(contract.Path, "home", lambda: root / "home")
