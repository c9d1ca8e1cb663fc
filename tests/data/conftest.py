"""What tests of several sources use."""

from __future__ import annotations

import pytest

from bascule.data import _streamed


@pytest.fixture(params=["in memory", "streamed"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways a split can be held."""
    if request.param == "streamed":
        monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    return request.param
