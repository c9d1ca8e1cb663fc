"""How a model is trained: objective, optimiser, schedule, augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.catalog import Of, component, name_of
from bascule.core.errors import RequestError
from bascule.core.text import count
from bascule.training.awp import WeightPerturbation
from bascule.training.contract import Objective
from bascule.training.crop import ResizedCrop


@component
class Augment:
    """Random crop, shift and mirror, one draw per image, the whole batch at once."""

    later: ClassVar[tuple[str, ...]] = ("resized_crop",)
    """Fields that came after records had been written."""

    resized_crop: ResizedCrop | None = None
    """Take a random part and enlarge it to the whole, before the shift; `{}` with torchvision's defaults. The part may
    lack a trigger."""
    pad: Annotated[int, Ge(0)] = 0
    """Zero-pad every side by this many pixels, then crop back at a random place: shifts of -pad to +pad."""
    flip: bool = False
    """Mirror left-right with probability one half."""

    def apply(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Augmented copies of `x`, B x C x H x W."""
        if self.resized_crop is not None:
            x = self.resized_crop.apply(x, generator=generator)
        batch, channels, height, width = x.shape
        if self.pad:
            shift = torch.randint(2 * self.pad + 1, (2, batch, 1), generator=generator, device=x.device)
            mirrored = self._draw_mirrored(batch, x.device, generator)
            rows = torch.arange(height, device=x.device) + shift[0]
            columns = torch.arange(width, device=x.device)
            columns = torch.where(mirrored, width - 1 - columns, columns) + shift[1]
            # One number per pixel, and mirroring within it: nine times cheaper than an index for each dimension.
            places = rows.unsqueeze(2) * (width + 2 * self.pad) + columns.unsqueeze(1)
            padded = F.pad(x, (self.pad,) * 4).flatten(2)
            return padded.gather(2, places.reshape(batch, 1, -1).expand(-1, channels, -1)).reshape(x.shape)
        if self.flip:
            mirrored = self._draw_mirrored(batch, x.device, generator).reshape(-1, 1, 1, 1)
            x = torch.where(mirrored, x.flip(3), x)
        return x

    def _draw_mirrored(self, batch: int, device: torch.device, generator: torch.Generator) -> Tensor:
        """Which images are mirrored, B x 1."""
        if not self.flip:
            return torch.zeros(batch, 1, dtype=torch.bool, device=device)
        return torch.rand(batch, 1, generator=generator, device=device) < 0.5


@component
class Training:
    """A training schedule. An epoch is a fresh random order of the set, cut into whole batches; a rest is left out."""

    later: ClassVar[tuple[str, ...]] = ("clip_norm", "ema", "awp", "keep", "shares", "sync_batch_norm")
    """Fields that came after records had been written."""

    objective: Annotated[Objective, Of("train")]
    """What one step minimises, for example `standard` or `{name: pgd, eps: 0.3}`."""
    epochs: Annotated[int, Ge(1)]
    """Passes over the training set."""
    batch_size: Annotated[int, Ge(1)] = 128
    """Images per step; the whole set when it is smaller."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    """`sgd` uses `momentum`; `adam` and `adamw` use (momentum, 0.999)."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Peak learning rate."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Momentum of SGD, first beta of Adam."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """L2 coefficient (decoupled for `adamw`) on weights of convolutions and linear layers, not on biases or norms, nor
    inside a module of the network whose attribute `without_weight_decay` is true."""
    schedule: Literal["constant", "one-cycle", "cosine", "piecewise"] = "constant"
    """Learning rate: `one-cycle` rises linearly, then falls along a cosine to 0; `piecewise` uses `milestones`."""
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    """Share of the training in which `one-cycle` rises."""
    milestones: tuple[tuple[Annotated[int, Ge(0)], Annotated[float, Ge(0)]], ...] = ()
    """For `piecewise`: [first step, share of lr] pairs in order, for example [[0, 1.0], [15000, 0.1]]."""
    augment: Augment = Augment()
    """Random shifts and mirroring, after stamping and before any perturbation."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of all passes in training, those of attacks too. `bfloat16` is mixed precision: products in bfloat16; weights,
    statistics, loss, gradients and optimiser in float32. Evaluation is always in float32."""
    clip_norm: Annotated[float, Gt(0)] | None = None
    """Length, in L2 over all parameters, to which a longer gradient is shortened before the optimiser's step (Pascanu,
    Mikolov & Bengio 2013; `torch.nn.utils.clip_grad_norm_`); by default none is."""
    ema: Annotated[float, Interval(ge=0, lt=1)] | None = None
    """Decay, for example 0.995 (Rebuffi et al. 2021) or 0.999, of an exponential moving average of the weights: the
    averaged model is the one that is looked at, kept and measured (`Average`). By default nothing is averaged."""
    awp: WeightPerturbation | None = None
    """Adversarial weight perturbation around every step (Wu, Xia & Wang 2020), for example `{gamma: 0.005}`; by default
    none."""
    keep: Literal["last", "best"] = "last"
    """The epoch whose weights are kept. `best`: the first of those with the highest robust accuracy on the held-out
    images (`data.held_out`), since training on can lower it ("robust overfitting", Rice, Wong & Kolter 2020). The
    attack is PGD of 10 steps of 2.5 eps / 10, one try from a random start, in the objective's ball, as theirs is; for
    an objective without a ball it is accuracy. The test set has no part in it."""
    shares: Annotated[int, Ge(1)] = 1
    """Equal parts that each batch is cut into, as by so many GPUs: each has draws, a search for images, batch-norm
    statistics and a weight perturbation of its own; gradients and running statistics are averaged before the one step.
    As many processes as divide it may train together and end in the same numbers but for rounding; one process takes
    them one after another, which needs memory for one share only."""
    sync_batch_norm: bool = False
    """Whether batch norm normalises the whole batch together, and not each share by itself, where the network learns
    (synchronised batch norm). Needs one process for each share. Searches that use the statistics of a batch go by the
    share's."""

    def __post_init__(self) -> None:
        if self.precision != "float32" and self.objective.needs_float32:
            raise RequestError(
                f"{name_of(self.objective)} trains with bounds, which hold in float32 only; got {self.precision!r}. "
                "Leave the setting out.",
                place=("precision",),
            )
        if self.batch_size % self.shares:
            raise RequestError(
                f"a batch of {count(self.batch_size, 'image')} cannot be cut into {count(self.shares, 'equal share')}: "
                "let `batch_size` be a multiple of it",
                place=("shares",),
            )
        steps = [step for step, _ in self.milestones]
        if self.schedule == "piecewise" and (not steps or steps[0] != 0 or steps != sorted(set(steps))):
            raise ValueError(
                f"schedule piecewise needs milestones that start at step 0 and rise, got {self.milestones}"
            )
        if self.schedule != "piecewise" and steps:
            raise ValueError(f"milestones are used by schedule piecewise only, the schedule is {self.schedule!r}")

    @property
    def steady_from(self) -> float | None:
        """As the objective's: the share of the training from which on every step is the same operations."""
        steady = self.objective.steady_from
        return steady if steady is None or self.awp is None else max(steady, self.awp.warmup)

    def steps_per_epoch(self, images: int) -> int:
        """Whole batches in a set of so many images."""
        return max(1, images // self.batch_size)

    def lr_share(self, step: int, total: int) -> float:
        """Share of the peak learning rate used in step `step` (from 0) of `total`."""
        match self.schedule:
            case "constant":
                return 1.0
            case "piecewise":
                return next(share for first, share in reversed(self.milestones) if step >= first)
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * step / total))
        rise = self.warmup * total
        if step + 1 <= rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * max(0.0, step - rise) / (total - rise)))

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over the parameters of `model` that want gradients."""
        spared = {
            id(p) for part in model.modules() if getattr(part, "without_weight_decay", False) for p in part.parameters()
        }
        groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in (self.weight_decay, 0.0)]
        for p in model.parameters():
            if p.requires_grad:
                groups[p.ndim <= 1 or id(p) in spared]["params"].append(p)
        fused = True if _fuse(groups[0]["params"] + groups[1]["params"]) else None
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=fused)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, lr=self.lr, betas=(self.momentum, 0.999), fused=fused)


def _fuse(parameters: Sequence[Tensor]) -> bool:
    """Whether torch can take their step in one pass over the memory of each: where that holds their numbers alone.

    Complex and sparse ones it refuses; of a part of a larger tensor it would take the wrong numbers (torch 2.13).
    """
    return all(
        p.device.type in ("cpu", "cuda") and p.is_floating_point() and p.layout == torch.strided and _is_dense(p)
        for p in parameters
    )


def _is_dense(p: Tensor) -> bool:
    """Whether the entries lie in memory without a gap, in whatever order."""
    return sum((size - 1) * step for size, step in zip(p.shape, p.stride(), strict=True)) + 1 == p.numel()
