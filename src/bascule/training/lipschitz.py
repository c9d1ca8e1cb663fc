"""Cross-Lipschitz regularisation."""

from __future__ import annotations

import functools
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from bascule.core.ball import Ball
from bascule.core.catalog import Of, component
from bascule.core.gradients import check_second_derivatives, gradient_of, second_derivatives
from bascule.training.contract import CrossEntropy, Objective, check_plain
from bascule.training.standard import Standard


@component
class Lipschitz(Objective):
    """Cross-entropy plus a penalty on how fast the differences of logits change with the input, averaged over images.

    L = CE + weight * 1/(n K^2) * sum_i sum_{l,m} |grad f_l(x_i) - grad f_m(x_i)|^2 for n images and K logits, where x_i
    are the images the step is taken on: adversarial ones when added to `pgd`.

    Sources: Hein & Andriushchenko 2017 (the cross-Lipschitz functional); the Lipschitz rows of Weng, Lee & Wu 2020, on
    their own (added to `standard`) and with adversarial training (added to `pgd`). As there, the gradients are those of
    the network in train mode: with batch norm the logits of an image also depend on the others of its batch, and a
    gradient is that of the logit summed over the batch (the random estimate leaves out products between images). The
    attack does not see the penalty.
    """

    compiles: ClassVar[bool] = False
    follows_gradients: ClassVar[bool] = True

    inner: Annotated[Objective, Of("train")] = Standard()
    """The objective it is added to: `standard`, `pgd`, or another that is plain cross-entropy on images it chooses."""
    weight: Annotated[float, Ge(0)] = 1e-4
    """Weight of the penalty (squared logits per squared [0, 1] pixel units); 0 is the inner objective alone."""
    estimate: Literal["exact", "random"] = "exact"
    """`exact`: K - 1 more backward passes; `random`: one, unbiased, from a random direction per image."""

    def __post_init__(self) -> None:
        wanted = (
            "the penalty can be added to objectives that are plain cross-entropy on images they choose, such as "
            "standard or pgd"
        )
        check_plain(self.inner, wanted, place="inner")

    @property
    def ball(self) -> Ball | None:
        return self.inner.ball

    @property
    def steady_from(self) -> float | None:
        return self.inner.steady_from

    def check_model(self, model: nn.Module, x: Tensor) -> None:
        if self.weight:
            check_second_derivatives(model, x)

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return self.inner.inputs(model, x, y, progress=progress, generator=generator)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        assert isinstance(self.inner, CrossEntropy)
        seen = self.inputs(model, x, y, progress=progress, generator=generator).detach()
        if self.weight == 0:
            return self.inner.cross_entropy(model(seen), y)
        seen.requires_grad_(True)
        with second_derivatives():
            logits = model(seen)
            directions = _all_directions(logits) if self.estimate == "exact" else _one_direction(logits, generator)
            return self.inner.cross_entropy(logits, y) + self.weight * _roughness(logits, seen, directions)


def _roughness(logits: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """The penalty, given directions d, D x B x K, whose sum of d d^T is I - 11^T/K.

    With the logits' gradients as rows of J, sum_{l,m} |g_l - g_m|^2 = 2K sum |g_l|^2 - 2 |sum g_l|^2 is the trace of
    J^T 2K(I - 11^T/K) J, so 2K times the sum of |J^T d|^2. One backward pass per direction is quicker on the CPU than
    one for all of them (`is_grads_batched`), and needs no rule for batching from the model's layers.
    """
    total = logits.new_zeros(())
    for direction in directions:
        gradient = gradient_of(logits, x, direction, create_graph=True)
        total = total + gradient.square().sum()
    return 2 * total / logits.numel()


def _all_directions(logits: Tensor) -> Tensor:
    """Orthonormal vectors orthogonal to (1, ..., 1), Helmert's: K - 1 of them, the same for all images."""
    batch, classes = logits.shape
    return _helmert(classes, logits.dtype, logits.device).unsqueeze(1).expand(-1, batch, -1)


@functools.lru_cache(maxsize=8)
def _helmert(classes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """K - 1 x K; made once, since every step wants them on the device."""
    with torch.inference_mode(False):
        ones = torch.ones(classes, classes, dtype=torch.float64)
        rows = ones.tril(-1)[1:] - torch.diag(torch.arange(classes, dtype=torch.float64))[1:]
        return (rows / rows.norm(dim=1, keepdim=True)).to(device, dtype)


def _one_direction(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs per image, made orthogonal to (1, ..., 1): d d^T is I - 11^T/K in the mean (Hutchinson 1990)."""
    signs = torch.randint(2, logits.shape, generator=generator, device=logits.device).to(logits.dtype) * 2 - 1
    return (signs - signs.mean(1, keepdim=True)).unsqueeze(0)
