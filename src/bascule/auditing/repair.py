"""Repairing a model, and measuring what that did to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import safetensors.torch

from bascule.auditing.open import AuditedModel
from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.core.fingerprint import fingerprint
from bascule.core.progress import Progress
from bascule.core.text import count
from bascule.evaluation.model import evaluate_model
from bascule.evaluation.question import EvaluationSettings
from bascule.metrics.contract import Outcomes
from bascule.repairs.contract import Repair, Repaired
from bascule.repairs.run import run_repair


class RepairResult(NamedTuple):
    """A repaired model, and the outcomes before and after, on the same images."""

    repaired: Repaired
    before: Outcomes
    after: Outcomes


def repair_model(
    audited: AuditedModel, method: Repair, images: int, output: Path, settings: EvaluationSettings
) -> RepairResult:
    """Repair the model with a number of the test images and write its weights to `output` (safetensors).

    Returns:
        The repaired model, and the outcomes of the model before and after on the other test images: clean, under the
        attacks, one after the other, and with the trigger, where there are such.

    Raises:
        RequestError: No test image is left to measure on, or `output` is not named as what will be written there.
    """
    if images >= (there := len(audited.test)):
        raise RequestError(
            f"the data have {count(there, 'test image')}, and some must be left to measure on; give fewer "
            f"than {there}, not {images}",
            place=("images",),
        )
    if output.suffix != ".safetensors":
        raise RequestError(
            f"the weights are written as safetensors; give NAME.safetensors, not {output}", place=("output",)
        )
    used, others = audited.defender_images(images), audited.remaining_images(images)
    repaired = run_repair(audited.model, method, used, generator=audited.generator("repair"))
    state = {name: value.contiguous() for name, value in repaired.model.state_dict().items()}
    write_atomically(output, lambda temporary: safetensors.torch.save_file(state, temporary))
    settings = replace(settings, test=fingerprint("others", audited.identity, images))
    before, after = (
        evaluate_model(model, others, settings, seed=audited.seed, progress=Progress(), found=audited.found).outcomes
        for model in (audited.model, repaired.model)
    )
    return RepairResult(repaired, before, after)
