"""Security curves."""

from __future__ import annotations

from pages import said


def test_security_curves_hold_the_shares_that_stand(page: dict[str, str]) -> None:
    # Of 20 images 4, 10 and 20 are fooled at eps 0.05, 0.1 and 0.2.
    text = said(page["security"])
    assert "| eps 0 | eps 0.05 | eps 0.1 | eps 0.2 |" in text
    assert "None | 100.0 | 83.9-100.0 | 80.0 | 58.4-91.9 | 50.0 | 29.9-70.1 | 0.0 | 0.0-16.1 |" in text
    assert "Robust accuracy by eps. None: 100 % at 0, 80 % at 0.05, 50 % at 0.1, 0 % at 0.2." in page["security"]
    assert "None, eps 0.05: certified accuracy 25.0 %" in said(page["security"])
    assert page["security"].count('class="point"') == 5
