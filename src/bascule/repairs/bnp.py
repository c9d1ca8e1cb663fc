"""Pruning channels whose clean pre-activations are unlike those that batch norm remembers."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from bascule.core.ahead import read_batches
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.inference import chunks
from bascule.core.restore import evaluating
from bascule.repairs.contract import Repair, Repaired
from bascule.repairs.layers import capture

_BATCH = 500
"""Images per pass; has no effect on the result but rounding."""
_Norm = nn.modules.batchnorm._BatchNorm


@component
class Bnp(Repair):
    """Silences channels whose statistics on clean images stand apart from batch norm's running ones (BNP).

    The running statistics were gathered on the poisoned training set, those of the defender's images on clean ones
    alone. A channel's gain is set to 0 where the divergence KL(clean || running) of the two normal distributions is
    above mean + u * standard deviation of its layer. Source: Zheng et al. 2022 (Pre-activation Distributions Expose
    Backdoor Neurons), with the formula of the authors' code. Trains nothing and draws nothing.

    Defaults: u = 3, as in their code.

    Departures: the statistics are those of all of the defender's images, theirs of one batch of 500; batch norm's own
    `eps` is added to both variances, so that a dead channel is no outlier. As in their code the shift stays where the
    gain goes (BackdoorBench takes it too, and drops the root in the formula's first term). EP, the other method of the
    paper, needs the poisoned training set, which no repair is shown.
    """

    u: Annotated[float, Ge(0)] = 3.0
    """Standard deviations above the layer's mean from which on a channel is silenced; the more, the fewer."""

    def check_model(self, model: nn.Module, images: Images) -> None:
        _norms_of(model)

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        norms = _norms_of(model)
        silenced = 0
        for norm, (mean, variance) in zip(norms, clean_statistics(model, norms, images), strict=True):
            apart = divergence_from_running(norm, mean, variance)
            outlying = apart > apart.mean() + self.u * apart.std()
            with torch.no_grad():
                norm.weight[outlying] = 0
            silenced += int(outlying.sum())
        return Repaired(model, {"silenced": float(silenced)})


def _norms_of(model: nn.Module) -> list[_Norm]:
    """The batch norms that have a gain to prune and running statistics to compare with.

    Raises:
        RequestError: There is none.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _Norm) and module.affine and module.running_mean is not None
    ]
    if not norms:
        raise RequestError(
            "bnp compares clean images with the running statistics of batch norm, and the model has no batch norm with "
            "gain and such statistics; use a repair that looks elsewhere, for example anp or clp"
        )
    return norms


@torch.no_grad()
def clean_statistics(model: nn.Module, norms: list[_Norm], images: Images) -> list[tuple[Tensor, Tensor]]:
    """For each batch norm the mean and the unbiased variance of its inputs over all images, per channel.

    One that the images do not reach gets its running statistics.
    """
    counts = [0] * len(norms)
    sums = [torch.zeros(2, norm.num_features, dtype=torch.float64, device=images.device) for norm in norms]
    with evaluating(model), capture(norms, inputs=True) as taken:
        for _, x in read_batches(images, chunks(len(images), _BATCH, images.device)):
            taken[:] = [torch.empty(0) for _ in norms]
            model(x)
            for place, values in enumerate(taken):
                if len(values):
                    values = values.double().transpose(0, 1).flatten(1)
                    counts[place] += values.shape[1]
                    sums[place] += torch.stack([values.sum(1), values.square().sum(1)])
    found = []
    for norm, count, (total, squares) in zip(norms, counts, sums, strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = total / count if count else norm.running_mean.double()
        spread = (squares - count * mean.square()).clamp_min(0) / max(1, count - 1)
        found.append((mean, spread if count else norm.running_var.double()))
    return found


@torch.no_grad()
def divergence_from_running(norm: _Norm, mean: Tensor, variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, variance) from the norm's running statistics, per channel, in nats."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    known, own = norm.running_var.double() + norm.eps, variance + norm.eps
    return (known / own).log() / 2 + (own + (mean - norm.running_mean.double()).square()) / (2 * known) - 0.5
