"""Gram-matrix statistics."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.features import Features
from bascule.core.images import Images
from bascule.core.statistics import CONSISTENCY, deviations
from bascule.filters.clusters import LEAST
from bascule.filters.contract import Judged, LayerFilter
from bascule.filters.rules import UNLIKELY, anomaly_index, note_left_out, small_classes


@component
class Gram(LayerFilter):
    """Deviations of high-order Gram matrices, in the manner of Beatrix (Ma et al. 2022).

    For a layer's channels F (C x positions; tokens T x C are T positions, a flat layer is one) and each order p, the
    row sums of the Gram matrix of F^p, their p-th root taken (Sastry & Oore 2020): how strongly each channel fires
    together with all others. An image's deviation is the mean over channels and orders of |value - median| in robust
    deviations, within its class.

    Score: anomaly index of the image's deviation among its class's. Removed above `threshold`. Classes of fewer than 10
    images score 0.

    Departures: row sums instead of the whole matrix, which would have C^2 / 2 entries; medians of the class as it is,
    poison included, instead of 30 clean images, so poison must be a minority of its class; deviations count from the
    median on, not from 10 deviations on; images are judged by their own deviation, without the test between classes.
    """

    orders: Annotated[int, Ge(1)] = 8
    """Orders 1 to this are used."""
    threshold: Annotated[float, Gt(0)] = UNLIKELY
    """Anomaly index above which an image is removed (e squared, the paper's index for classes)."""

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        score = torch.zeros(len(images), device=images.device)
        for _, index, rows in self.features(model, images).by_class():
            if len(index) >= LEAST:
                score[index] = anomaly_index(self._deviation(rows))
        notes = note_left_out(images, small_classes(images, LEAST), f"having fewer than {LEAST} images")
        return Judged(score, score > self.threshold, notes)

    def _deviation(self, rows: Features) -> Tensor:
        """Mean robust deviation of each row's statistics from the class's median, shape (N,)."""
        values = torch.cat([gram_sums(_channels_first(part, rows.shape), self.orders) for part in rows.chunks()])
        _, distances, mad = deviations(values)
        # A channel that is silent in most images of the class has no median deviation but a mean one.
        spread = torch.where(mad > 0, CONSISTENCY * mad, 1.2533 * distances.mean(0))
        return (distances / spread.clamp_min(torch.finfo(spread.dtype).tiny)).mean(1)


def _channels_first(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Flattened outputs as channels and positions; of tokens, which are T x C, the channels come last."""
    maps = part.reshape(len(part), *shape)
    return maps.transpose(1, 2) if maps.ndim == 3 else maps


def gram_sums(maps: Tensor, orders: int) -> Tensor:
    """Row sums of the Gram matrices of orders 1 to `orders`, with their root, B x (orders * C).

    Args:
        maps: B x C x any positions; B x C is one position.
        orders: The highest order.
    """
    maps = maps.unsqueeze(2) if maps.ndim == 2 else maps.flatten(2)
    largest = maps.abs().amax((1, 2), keepdim=True).clamp_min(1e-30)  # high powers of large values overflow
    by_order = []
    for order in range(1, orders + 1):
        power = (maps / largest) ** order
        sums = (power * power.sum(1, keepdim=True)).sum(2)
        by_order.append(sums.sign() * sums.abs() ** (1 / order) * largest.squeeze(2) ** 2)
    return torch.cat(by_order, 1)
