"""What a repair takes from the backdoor, set against what it takes from accuracy."""

from __future__ import annotations

from bascule.core.catalog import component
from bascule.metrics._rating import Rated
from bascule.metrics.accuracy import Accuracy
from bascule.metrics.asr import Asr


@component
class Der(Rated):
    """Defence effectiveness rating: [max(0, fall of ASR) - max(0, fall of accuracy) + 1] / 2, against the same model
    before the repair.

    1 is a full backdoor gone at no price, 0.5 nothing won and nothing lost. Source: Zhu et al. 2023 (FT-SAM), equation
    7; BackdoorBench. Of rows with a repair.
    """

    title = "DER"
    gain = Asr()
    price = Accuracy()
    needs = ("triggered", "before-clean", "before-triggered")
