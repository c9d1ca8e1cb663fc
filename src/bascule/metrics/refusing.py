"""What is left of both ends when inputs that a detector suspects are refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bascule.metrics.contract import Estimate, Outcomes
from bascule.metrics.detection import Inputs
from bascule.metrics.ranking import auroc


def inputs_of(outcomes: Outcomes, sort: str) -> Inputs | None:
    """The inputs of a sort; None where no detector met any."""
    return None if outcomes.detection is None else outcomes.detection.sorts.get(sort)


def working(outcomes: Outcomes, sort: str) -> NDArray[np.bool_] | None:
    """Which inputs of a sort do what their attacker wants, shape (N,); None without them, or without the target.

    With a trigger: meant to move, and taken for the target. Adversarial alone: wrong, of images that are right when
    clean.
    """
    inputs, aimed = inputs_of(outcomes, sort), outcomes.aimed
    if inputs is None:
        return None
    if sort in ("triggered", "both", "both_evading"):
        return None if aimed is None else inputs.made & outcomes.meant & (inputs.prediction == aimed)
    right = None if outcomes.clean is None else outcomes.clean == outcomes.label
    return None if right is None else inputs.made & right & (inputs.prediction != outcomes.label)


def detection_auroc(outcomes: Outcomes, sort: str) -> Estimate | None:
    """How often an input of this sort that works is more suspicious than a test image as it is, ties half."""
    works, inputs, benign = working(outcomes, sort), inputs_of(outcomes, sort), inputs_of(outcomes, "benign")
    if works is None or inputs is None or benign is None:
        return None
    positive = np.arange(len(benign.suspicion) + int(works.sum())) >= len(benign.suspicion)
    return auroc(np.concatenate([benign.suspicion, inputs.suspicion[works]]), positive)


def accepted_and_right(outcomes: Outcomes) -> NDArray[np.bool_] | None:
    """Whether each test image as it is is right and not refused."""
    if outcomes.detection is None or outcomes.clean is None:
        return None
    return (outcomes.clean == outcomes.label) & ~outcomes.detection.refused("benign")


def withstood(outcomes: Outcomes, sort: str) -> NDArray[np.bool_] | None:
    """Whether each image is right and accepted as it is, and right or refused as an adversarial input; of the images
    that there is one of."""
    inputs, clean = inputs_of(outcomes, sort), accepted_and_right(outcomes)
    if inputs is None or clean is None or outcomes.detection is None:
        return None
    harmless = (inputs.prediction == outcomes.label) | outcomes.detection.refused(sort)
    return (clean & harmless)[inputs.made]


def undetected(outcomes: Outcomes, sort: str) -> NDArray[np.bool_] | None:
    """Whether each input with a trigger is taken for the target and not refused; of the images that are meant to move
    and that there is one of."""
    works, inputs = working(outcomes, sort), inputs_of(outcomes, sort)
    if works is None or inputs is None or outcomes.detection is None:
        return None
    return (works & ~outcomes.detection.refused(sort))[inputs.made & outcomes.meant]


def made_of(outcomes: Outcomes, sort: str) -> NDArray[np.bool_]:
    """Of which images there is an input of this sort; all where no detector met any."""
    inputs = inputs_of(outcomes, sort)
    return np.ones(len(outcomes.label), dtype=bool) if inputs is None else inputs.made
