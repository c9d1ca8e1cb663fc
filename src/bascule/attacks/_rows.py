"""Per image one of two: inside the searches that keep a best point."""

from __future__ import annotations

from torch import Tensor


def choose(first: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Where `first` (bool, shape (B,)) the image of `yes`, else that of `no`; a tensor of its own.

    As `torch.where`, which asks for every pixel (25 times the time of a product here), but by rows.
    """
    chosen = no.clone()
    chosen[first] = yes[first]
    return chosen
