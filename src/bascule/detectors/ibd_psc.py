"""Whether the model stays sure of its label when its batch norms are amplified."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.func import functional_call

from bascule.core.ahead import read_batches
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.inference import chunks, labels_of
from bascule.detectors.contract import Detector, Prepared

_CHUNK = 500
Amplified = Mapping[str, Tensor]
"""Parameters in place of the model's own, by name."""


@component
class IbdPsc(Detector):
    """IBD-PSC (Hou et al. 2024): the model stays sure of a triggered image when its parameters are amplified.

    Gain and shift of the last batch norms are multiplied by `omega`: of the last k of them in the first variant of the
    model, of one more in each further one. k is the fewest with which more than `xi` of the defender's images get a
    wrong label, so that clean images have lost their labels. PSC (parameter-oriented scaling consistency) is the mean
    probability, over the variants, of the label that the model itself gives. Suspicion: -log(1 - PSC), 0 and more.

    Defaults: as published, and in BackdoorBox.

    A model without batch norm is refused: the published code amplifies nothing else.

    Departures: PSC rounds to 1 for the surest clean images as for triggered ones, and then no threshold parts them; the
    logarithm has the same order without that. In the code of BackdoorBox the first variant has k + 1 batch norms where
    k was found, the search leaves out the first batch norm and fails where `xi` is not reached, and variants are
    repeated that would need more batch norms than there are. Here those are left out, and where `xi` is not reached,
    the variants are the last that there are. No copies are made: gains and shifts are exchanged during a pass.
    """

    omega: Annotated[float, Gt(1)] = 1.5
    """Factor of gain and shift."""
    variants: Annotated[int, Ge(1)] = 5
    """Amplified models that are asked (n in the paper); each costs a forward pass."""
    xi: Annotated[float, Interval(gt=0, lt=1)] = 0.6
    """Share of the defender's images that the first of them must get wrong."""

    def check_model(self, model: nn.Module, images: Images) -> None:
        if not _norms(model):
            raise RequestError(
                "ibd-psc amplifies batch norms with gain and shift, and this model has none. Choose a network with "
                "batch norm (resnet9, resnet18 ...), or a detector that takes any network, for example scale-up"
            )

    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        self.check_model(model, images)
        variants = self._variants(model, images)

        def suspicion(x: Tensor) -> Tensor:
            labels = labels_of(model(x).detach())
            unsure = [_log_other(functional_call(model, dict(variant), (x,)), labels) for variant in variants]
            return math.log(len(unsure)) - torch.stack(unsure).logsumexp(0)

        return Prepared(suspicion=suspicion)

    @torch.no_grad()
    def _variants(self, model: nn.Module, images: Images) -> Sequence[Amplified]:
        """Parameters of each variant."""
        last_first = _norms(model)[::-1]
        amplified = [self._amplified(model, last_first[: k + 1]) for k in range(len(last_first))]
        last = max(0, len(amplified) - self.variants)
        first = next((k for k, one in enumerate(amplified) if _error(model, one, images) > self.xi), last)
        return amplified[first : first + self.variants]

    def _amplified(self, model: nn.Module, names: Sequence[str]) -> Amplified:
        return {
            f"{name}.{part}": self.omega * model.get_parameter(f"{name}.{part}").detach()
            for name in names
            for part in ("weight", "bias")
        }


def _log_other(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of any label but these, shape (B,)."""
    return logits.log_softmax(1).scatter(1, labels.unsqueeze(1), -torch.inf).logsumexp(1)


def _norms(model: nn.Module) -> list[str]:
    """Names of the batch norms with gain and shift, in the order in which the model lists its parts."""
    kind = nn.modules.batchnorm._BatchNorm
    return [name for name, part in model.named_modules() if isinstance(part, kind) and part.affine]


def _error(model: nn.Module, amplified: Amplified, images: Images) -> float:
    """Share of the images that the amplified model gets wrong."""
    wrong = 0
    for index, x in read_batches(images, chunks(len(images), _CHUNK, images.device)):
        logits = functional_call(model, dict(amplified), (x,))
        wrong += int((logits.argmax(1) != images.labels[index]).sum())
    return wrong / len(images)
