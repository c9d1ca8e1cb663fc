"""Evaluations whose answer is not one value per test image: what filters, scanners and explanations find."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bascule.core import rng
from bascule.core.features import features
from bascule.core.images import as_bytes
from bascule.evaluate.evaluate import Answer, Job
from bascule.evaluate.passes import BATCH
from bascule.explain import HeatMap, Projection, Spectrum
from bascule.explain.attention import changed_pixels, changed_share, trigger_attention
from bascule.explain.run import run_heat_map, run_spectrum
from bascule.filter.run import run_filter
from bascule.poison.placement import stamp
from bascule.run.make import judgement, planted, said
from bascule.scan.run import run_scanner

EXPLAINED = 256
"""Test images whose explanation is counted."""
GALLERY = 8
"""Test images whose explanation is shown."""


def _inspected(job: Job) -> Answer:
    """What a filter says of the training set."""
    images, truth = planted(job.cell, job.run, job.workshop)
    with job.progress.stage("filter", 1):
        found = run_filter(job.model, job.link.component, images, generator=job.generator)
    arrays = judgement(images, truth, found.score, found.removed)
    return Answer(arrays={name: torch.from_numpy(values) for name, values in arrays.items()}, notes=said(found))


def _scanned(job: Job) -> Answer:
    """What a scanner says of the model, and how far the trigger it recovers lies on the true one."""
    with job.progress.stage("scan", 1):
        found = run_scanner(job.model, job.link.component, job.workshop.held_out(job.cell), generator=job.generator)
    arrays = {"anomaly": found.anomaly, **dict(found.details)}
    notes = {"threshold": found.threshold, "suspects": list(found.suspects)}
    if found.passes is not None:
        notes |= {"forward": found.passes.forward, "backward": found.passes.backward}
    if found.pattern is not None and found.mask is not None:
        arrays |= {"pattern": as_bytes(found.pattern), "mask": as_bytes(found.mask)}
        target = job.link.target
        if target is not None and bool(found.mask[target].isfinite().all()):
            notes["overlap"] = round(_overlap(found.mask[target].amax(0), _true_mask(job)), 4)
    return Answer(arrays=arrays, notes=notes)


def _true_mask(job: Job) -> Tensor:
    """Share of test images in which the trigger changes each pixel, H x W."""
    x, stamped = _pairs(job, EXPLAINED)
    return changed_pixels(x, stamped).double().mean(0)


def _overlap(mask: Tensor, truth: Tensor) -> float:
    """Intersection over union of two soft masks, H x W: 1 where they are equal, 0 where they do not touch."""
    both = torch.minimum(mask.to(truth), truth).sum()
    return float(both / torch.maximum(mask.to(truth), truth).sum().clamp_min(1e-12))


def _pairs(job: Job, count: int) -> tuple[Tensor, Tensor]:
    """The first test images that are not of the target class, without and with the trigger."""
    trigger = job.link.trigger
    assert trigger is not None
    target = job.link.target
    assert target is not None
    index = (job.test.labels != target).nonzero().squeeze(1)[:count]
    x = job.test.batch(index)
    generator = rng.stream(job.cell.seed, job.link.key, "shown", device=job.test.device)
    return x, stamp(trigger, x, generator=generator)


def _explained(job: Job) -> Answer:
    part = job.link.component
    if isinstance(part, Projection):
        return _projection(job, part)
    return _heat(job, part) if isinstance(part, HeatMap) else _spectrum(job, part)


def _projection(job: Job, method: Projection) -> Answer:
    """Where the model puts the training images that carry the target's label, poisoned ones among them."""
    images, truth = planted(job.cell, job.run, job.workshop)
    index = (images.labels == (job.link.target or 0)).nonzero().squeeze(1)
    chosen = images.at(index)
    points = method.project(features(job.model, chosen, layer=method.layer), generator=job.generator)
    poisoned = torch.zeros(len(chosen), dtype=torch.bool)
    if truth is not None:
        poisoned = torch.isin(chosen.ids.cpu(), truth.ids.cpu())
    return Answer(arrays={"points": torch.from_numpy(points), "poisoned": poisoned})


def _heat(job: Job, method: HeatMap) -> Answer:
    """Where the model looks: at clean images for their label, at triggered ones for the target."""
    generator = job.generator

    def heat(x: Tensor, y: Tensor) -> Tensor:
        return run_heat_map(job.model, method, x, y, generator=generator, batch_size=BATCH)

    target = job.link.target
    if job.link.trigger is None or target is None:
        index = torch.arange(min(GALLERY, len(job.test)), device=job.test.device)
        x = job.test.batch(index)
        return Answer(arrays={"clean": as_bytes(x), "heat_clean": heat(x, job.test.labels[index])})
    x, stamped = _pairs(job, EXPLAINED)
    labels = job.test.labels[job.test.labels != target][: len(x)]
    towards = torch.full_like(labels, target)
    changed = changed_pixels(x, stamped)
    on_clean, on_stamped = heat(x, towards), heat(stamped, towards)
    return Answer(
        arrays={
            "attention": trigger_attention(on_stamped, changed),
            "attention_clean": trigger_attention(on_clean, changed),
            "chance": changed_share(changed),
            "clean": as_bytes(x[:GALLERY]),
            "stamped": as_bytes(stamped[:GALLERY]),
            "heat_clean": heat(x[:GALLERY], labels[:GALLERY]),
            "heat_stamped": on_stamped[:GALLERY],
        }
    )


def _spectrum(job: Job, method: Spectrum) -> Answer:
    """How the model's answers depend on frequency, on clean test images."""
    index = torch.arange(min(EXPLAINED, len(job.test)), device=job.test.device)
    x, y = job.test.batch(index), job.test.labels[index]
    found = run_spectrum(job.model, method, x, y, generator=job.generator, batch_size=BATCH)
    frequencies = method.frequencies(x.shape[2], x.shape[3])
    return Answer(arrays={"frequencies": frequencies, "response": found.nanmean(0), "count": (~found.isnan()).sum(0)})


EXAMINE: dict[str, Callable[[Job], Answer]] = {"inspect": _inspected, "scan": _scanned, "explain": _explained}
