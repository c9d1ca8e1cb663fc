"""Running a filter: what is guaranteed whatever it returns."""

from __future__ import annotations

import torch
from torch import nn

from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.restore import evaluating, frozen
from bascule.core.returned import returned
from bascule.filters.contract import Filter, Judged


def run_filter(model: nn.Module, filter: Filter, images: Images, *, generator: torch.Generator) -> Judged:  # noqa: A002
    """Ask `filter` about every image; the answers come in the order of `images`, on the CPU.

    The model is in eval mode with frozen parameters and is found as it was afterwards. The filter sees the images
    sorted by id: the same images in another order get the same answers, up to rounding. Nobody's training set is
    emptied: a rule that removes every image is an error, as is a score that is not finite, since both are numbers
    nobody should go on with.

    Args:
        model: From [0, 1] images to logits, trained on `images`, on their device.
        filter: The defence.
        images: The training set with the labels as trained on.
        generator: On the device of the images.

    Raises:
        RequestError: The settings do not fit the model or the images, or the rule removes every image.
        ValueError: The filter breaks its contract: shape, type, or a score that is not finite.
    """
    order = images.ids.argsort()
    sorted_already = bool((order[1:] > order[:-1]).all())
    given = images if sorted_already else images.at(order)
    with evaluating(model), frozen(model):
        judged = returned(filter.judge(model, given, generator=generator), Judged, who=filter, method="judge")
    score, removed = judged.score.detach().cpu(), judged.removed.cpu()
    for name, value, dtype in (("score", score, torch.float32), ("removed", removed, torch.bool)):
        if value.shape != (len(images),) or value.dtype != dtype:
            shape = tuple(value.shape)
            raise ValueError(f"{filter!r} gave {name} of shape {shape}, {value.dtype} for {len(images)} images")
    if not bool(score.isfinite().all()):
        raise ValueError(f"{filter!r} gave {int((~score.isfinite()).sum())} scores that are not finite")
    if bool(removed.all()):
        raise RequestError(f"{filter!r} removes all {len(images)} images; choose a stricter rule")
    if sorted_already:
        return Judged(score, removed, judged.notes)
    place = order.cpu().argsort()
    return Judged(score[place], removed[place], judged.notes)
