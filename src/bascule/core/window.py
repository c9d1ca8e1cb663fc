"""Windows: images of which one square of pixels may be anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bascule.core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Window(Threat):
    """All images in [0, 1] that are the origin but for one square, wherever that lies."""

    size: int
    """Side of the square in pixels, cut to the image's sides."""

    @property
    def words(self) -> str:
        return f"one window of {self.size} x {self.size} pixels"

    def realise(self, proposal: Tensor, origin: Tensor) -> Tensor:
        """The proposed images inside the window that holds most of their changes; the origin outside."""
        proposal = torch.where(proposal.isfinite(), proposal, origin).clamp(0, 1)
        sums = self.sums((proposal - origin).abs())
        return torch.where(self.mask(sums.flatten(1).argmax(1), origin), proposal, origin)

    def sums(self, values: Tensor) -> Tensor:
        """Of each window the sum of B x C x H x W values over pixels and channels, one number per place: B x P x Q."""
        height, width = self._sides(values)
        return F.avg_pool2d(values.sum(1, keepdim=True), (height, width), stride=1).squeeze(1) * (height * width)

    def places(self, like: Tensor) -> int:
        """How many places there are in images of this size, counted row by row."""
        height, width = self._sides(like)
        return (like.shape[2] - height + 1) * (like.shape[3] - width + 1)

    def mask(self, place: Tensor, like: Tensor) -> Tensor:
        """Which pixels the window covers at each image's place (row by row, shape (B,)): bool, B x 1 x H x W."""
        height, width = self._sides(like)
        across = like.shape[3] - width + 1
        top, left = (part.reshape(-1, 1, 1, 1) for part in (place // across, place % across))
        rows = torch.arange(like.shape[2], device=like.device).reshape(1, 1, -1, 1) - top
        columns = torch.arange(like.shape[3], device=like.device).reshape(1, 1, 1, -1) - left
        return (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)

    def _sides(self, like: Tensor) -> tuple[int, int]:
        return min(self.size, like.shape[2]), min(self.size, like.shape[3])
