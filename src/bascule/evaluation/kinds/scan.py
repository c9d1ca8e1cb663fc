"""What a scanner says of the model, and how far the trigger that it recovers lies on the true one."""

from __future__ import annotations

import torch
from torch import Tensor

from bascule.core.images import as_bytes
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import EXPLAINED, Answer, Subject
from bascule.explanations.attention import changed_pixels
from bascule.scanners.run import run_scanner

FOLLOWS = "inspect"


def ask(asking: Asking) -> None:
    """Where a scanner is to look."""
    settings = asking.settings
    if settings.scan is not None:
        asking.ask("scan", settings.scan, value=settings.defender, trigger=settings.trigger, **settings.aim)


def answer(question: Question, subject: Subject) -> Answer:
    """Anomaly by class, what the scanner recovered, whom it suspects."""
    with subject.progress.stage("scan", 1):
        scan = run_scanner(
            subject.model, question.component, subject.defenders_images(), generator=subject.generator(question)
        )
    arrays = {"anomaly": scan.anomaly, **dict(scan.details)}
    notes = {"threshold": scan.threshold, "suspects": list(scan.suspects)}
    if scan.passes is not None:
        notes |= {"forward": scan.passes.forward, "backward": scan.passes.backward}
    if scan.pattern is not None and scan.mask is not None:
        arrays |= {"pattern": as_bytes(scan.pattern), "mask": as_bytes(scan.mask)}
        target = question.target
        if target is not None and bool(scan.mask[target].isfinite().all()):
            notes["overlap"] = round(_overlap(scan.mask[target].amax(0), _true_mask(question, subject)), 4)
    return Answer(arrays=arrays, notes=notes)


def _true_mask(question: Question, subject: Subject) -> Tensor:
    """Share of test images in which the trigger changes each pixel, H x W."""
    _, x, stamped = subject.stamped_pairs(question, EXPLAINED)
    return changed_pixels(x, stamped).double().mean(0)


def _overlap(mask: Tensor, truth: Tensor) -> float:
    """Intersection over union of two soft masks, H x W: 1 where they are equal, 0 where they do not touch."""
    both = torch.minimum(mask.to(truth), truth).sum()
    return float(both / torch.maximum(mask.to(truth), truth).sum().clamp_min(1e-12))
