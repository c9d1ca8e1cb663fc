"""The sinusoidal signal, pixel by pixel."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bascule.core.errors import RequestError
from bascule.triggers.sig import Sig


def test_one_period_over_four_columns(stamp) -> None:
    # sin of 0, 90, 180 and 270 degrees.
    stamped = stamp(Sig(delta=0.2, frequency=1.0), torch.full((2, 3, 2, 4), 0.5))
    row = pytest.approx([0.5, 0.7, 0.5, 0.3])
    assert [line.tolist() for line in stamped.reshape(-1, 4)] == [row] * 12


def test_half_a_period_over_three_rows(stamp) -> None:
    # sin of 0, 60 and 120 degrees, the same in every column.
    stamped = stamp(Sig(delta=0.2, frequency=0.5, direction="vertical"), torch.full((1, 1, 3, 2), 0.5))
    high = 0.5 + 0.2 * 0.75**0.5
    assert stamped.flatten().tolist() == pytest.approx([0.5, 0.5, high, high, high, high])


def test_it_is_clipped_at_black_and_white(stamp) -> None:
    stamped = stamp(Sig(delta=0.2, frequency=1.0), torch.tensor([0.9, 0.9, 0.1, 0.1]).reshape(1, 1, 1, 4))
    assert stamped.flatten().tolist() == pytest.approx([0.9, 1.0, 0.1, 0.0])


def test_the_papers_stripes_on_mnist(stamp) -> None:
    stamped = stamp(Sig(), torch.full((1, 1, 28, 28), 0.5))[0, 0] - 0.5
    assert torch.equal(stamped, stamped[:1].expand(28, -1))
    assert stamped.abs().max() == pytest.approx(40 / 255, rel=0.03)
    assert stamped.sum() == pytest.approx(0, abs=1e-4)
    spectrum = torch.fft.rfft(stamped[0].double()).abs()
    assert spectrum.argmax() == 6
    assert spectrum.sum() == pytest.approx(float(spectrum[6]), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"frequency": 4.0}, (8, 8)),
        ({"frequency": 16.0}, (9, 8)),
        ({"frequency": 3.0, "direction": "vertical"}, (3, 8)),
        ({"delta": 0.001}, (8, 9)),
    ],
    ids=["half-wave", "whole-waves", "vertical", "faint"],
)
def test_a_wave_that_nobody_sees_is_refused(stamp, settings: dict[str, Any], size: tuple[int, int]) -> None:
    height, width = size
    with pytest.raises(RequestError, match=f"is nowhere seen on images of {height} x {width}: raise delta"):
        stamp(Sig(**settings), torch.zeros(1, 1, height, width))
