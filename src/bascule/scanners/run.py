"""Running a scanner: what is guaranteed whatever it returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from bascule.core.ahead import read_batches
from bascule.core.catalog import name_of
from bascule.core.errors import RequestError
from bascule.core.gradients import check_differentiable
from bascule.core.images import Images
from bascule.core.inference import labels_of
from bascule.core.restore import evaluating, untouched
from bascule.core.returned import returned
from bascule.scanners.contract import Passes, Scan, Scanner

LEAST_CLASSES = 3
"""With two classes neither stands out from the other."""


def run_scanner(model: nn.Module, scanner: Scanner, images: Images, *, generator: torch.Generator) -> Scan:
    """Ask `scanner` about `model`, in eval mode with frozen parameters; the model is found as it was afterwards.

    Recovered triggers are clipped to [0, 1]. Their success is measured here, on all images of the other classes, and
    the images that go through the model during the scan are counted here.

    Args:
        model: From [0, 1] images to logits.
        scanner: The method.
        images: The defender's clean images with their true labels, on the model's device.
        generator: On the device of the images.

    Raises:
        RequestError: Fewer than three classes, images of one class only, a model with another number of classes, with
            broken answers, or without the gradients that the scanner follows, or what the scanner refuses.
    """
    classes = len(images.classes)
    if classes < LEAST_CLASSES:
        raise RequestError(
            f"a scan compares classes with each other and needs at least {LEAST_CLASSES}; these images have {classes}"
        )
    if bool((images.labels == images.labels[0]).all()):
        raise RequestError(
            f"all {len(images)} images are of class {int(images.labels[0])}; a scan needs images of several classes"
        )
    with untouched(model):
        logits = model(images.batch(torch.zeros(1, dtype=torch.int64, device=images.device)))
        if logits.shape != (1, classes):
            raise RequestError(
                f"for one image the model gives shape {tuple(logits.shape)}; these images have {classes} classes, "
                f"so it should be {(1, classes)}"
            )
        if not bool(logits.isfinite().all()):
            raise RequestError("the model gives values that are not finite: it is broken, and nothing can be scanned")
        if scanner.follows_gradients:
            few = images.batch(torch.arange(min(8, len(images)), device=images.device))
            check_differentiable(model, few, who=name_of(scanner))
        with _counted(model) as count:
            scan = returned(scanner.scan(model, images, generator=generator), Scan, who=scanner, method="scan")
        passes = Passes(*count)
    if scan.anomaly.shape != (classes,):
        raise ValueError(f"{scanner!r} gave anomalies of shape {tuple(scan.anomaly.shape)} for {classes} classes")
    scan = replace(scan, passes=passes, anomaly=scan.anomaly.detach())
    if scan.pattern is None or scan.mask is None:
        return scan
    pattern, mask = (value.detach().clamp(0, 1) for value in (scan.pattern, scan.mask))
    scan = replace(scan, pattern=pattern, mask=mask)
    return replace(scan, details={**scan.details, "success": success(model, scan, images)})


@torch.no_grad()
def success(model: nn.Module, scan: Scan, images: Images, *, batch_size: int = 1000) -> Tensor:
    """For each class, the share of images of other classes that its recovered trigger moves to it.

    Floats, shape (K,); NaN for classes without a recovered trigger.
    """
    assert scan.mask is not None
    moved = torch.full_like(scan.anomaly, torch.nan)
    there = scan.mask.flatten(1).isfinite().all(1)
    with evaluating(model):
        for label in there.nonzero().flatten().tolist():
            others = (images.labels != label).nonzero().squeeze(1)
            hits = torch.zeros((), dtype=torch.int64, device=images.device)
            for _, x in read_batches(images, others.split(batch_size) if len(others) else ()):
                hits += (labels_of(model(scan.stamp(x, label))) == label).sum()
            moved[label] = hits / len(others)
    return moved


@contextmanager
def _counted(model: nn.Module) -> Iterator[list[int]]:
    """Counts [images forward, images backward] through `model` inside the block."""
    count = [0, 0]

    def on_forward(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        count[0] += len(output)
        if output.requires_grad:
            output.register_hook(on_backward)

    def on_backward(gradient: Tensor) -> None:
        count[1] += len(gradient)

    handle = model.register_forward_hook(on_forward)
    try:
        yield count
    finally:
        handle.remove()
