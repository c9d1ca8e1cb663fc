"""Bounds on a network's answers over a ball: intervals forward, linear bounds backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.certifiers._graph import Trace, kept_trace, replay, trace
from bascule.certifiers._ops import Box, Op, Ref, Rows, dot
from bascule.core.ball import LinfOrL2
from bascule.core.errors import RequestError
from bascule.core.inference import chunks

Intermediate = Literal["interval", "crown"]

ROUNDING = 2.0**8
"""Allowance for rounding in units of the machine epsilon (3e-5 in float32), relative to the size of a margin's sum.

Not a proof: no rounding is directed. But a relative error of some units in the last place in every layer acts like a
radius larger by about 1e-6, and the sum's size grows with the radius, so what is allowed is more than what happens.
"""

_PROBED = 4
"""Images on which the traced network is compared with the model."""

_BUDGET = 2**25
"""Entries of the largest tensor of coefficients held at a time."""

_PULLED = 2**24
"""Entries of the matrix of an affine start of the network that are worked out one by one, at most."""


@dataclass
class _Step:
    op: Op | None
    inputs: tuple[int, ...]
    box: Box
    nominal: Tensor | None
    start: _Start | None = None


class _Start(NamedTuple):
    """What is known of a value that is an affine map of the image; kept for L2 balls only."""

    value: Tensor
    """At the images themselves, B x shape."""
    rows: Rows


@dataclass(frozen=True)
class _Form:
    """Linear functions of the values of some steps, S per image."""

    terms: list[tuple[int, Tensor]]
    """Steps and their coefficients, B x S x shape."""
    constants: list[Tensor]
    """Added to it, B x S each."""


class Bounds:
    """Bounds for one batch of images and one ball; `bound` makes them.

    The input is the ball cut to [0, 1]. In L2, a value that is affine in the image stays within `eps` times the length
    of its row of weights of what it is at the image (the dual norm: exact but for the cut), and within what the box
    around the ball gives; linear bounds use the ball itself.
    """

    def __init__(self, x: Tensor, *, norm: LinfOrL2, eps: float, nominal: bool, intermediate: Intermediate) -> None:
        self.x, self.norm, self.eps, self.intermediate = x, norm, eps, intermediate
        box = Box((x - eps).clamp(0, 1), (x + eps).clamp(0, 1))
        start = _Start(x, Rows(torch.ones_like(x[:1]))) if norm == "l2" else None
        self._steps = [_Step(None, (), box, x if nominal else None, start)]
        self.answer = self.image
        """The logits; set once the operations are all added."""

    # --- building ------------------------------------------------------------------------------------------------

    @property
    def image(self) -> Ref:
        """The input."""
        return self._ref(0)

    def _ref(self, index: int) -> Ref:
        step = self._steps[index]
        return Ref(index, step.box.lower, step.nominal)

    def add(self, op: Op, *inputs: Ref, nominal: Tensor | None = None) -> Ref:
        """One more operation; its result for the images themselves is `nominal` where that is known already."""
        places = tuple(ref.index for ref in inputs)
        if not op.affine or any(self._steps[place].start is None for place in places):
            for place in places:
                exact = self._narrow(place)
                if self.intermediate == "crown" and not op.affine and not exact:
                    self._refine(place)
        steps = [self._steps[place] for place in places]
        if nominal is None:
            clean = [step.nominal for step in steps if step.nominal is not None]
            nominal = op.value(*clean) if len(clean) == len(steps) else None
        starts = [step.start for step in steps if step.start is not None]
        start = None
        if op.affine and len(starts) == len(steps):
            start = _Start(op.value(*(one.value for one in starts)), op.rows(*(one.rows for one in starts)))
        self._steps.append(_Step(op, places, op.push(*(step.box for step in steps)), nominal, start))
        return self._ref(len(self._steps) - 1)

    def _narrow(self, place: int) -> bool:
        """Intersect the box of a step with its dual norm bounds, where it is affine in an image that is in an L2 ball.

        Returns whether these are exact, so that linear bounds would add nothing.
        """
        step = self._steps[place]
        if step.start is None:
            return False
        value, rows = step.start
        if not rows.exact and value[0].numel() * self.x[0].numel() <= _PULLED:
            rows = self._pulled_rows(place)
            step.start = _Start(value, rows)
        half = self.eps * rows.length
        lower, upper = torch.maximum(step.box.lower, value - half), torch.minimum(step.box.upper, value + half)
        step.box = Box(torch.minimum(lower, upper), torch.maximum(lower, upper))
        return rows.exact

    def _pulled_rows(self, place: int) -> Rows:
        """The rows of an affine start of the network, each worked out."""
        value = self._steps[place].box.lower
        parts = []
        for units in torch.arange(value[0].numel(), device=self.x.device).split(max(1, _BUDGET // self.width)):
            one = F.one_hot(units, value[0].numel()).to(self.x).reshape(1, -1, *value.shape[1:])
            ((_, coefficients),) = self._pull(place, one, through_all=True).terms
            parts.append(torch.linalg.vector_norm(coefficients.flatten(2), dim=2))
        length = torch.cat(parts, 1)
        return Rows(length.unflatten(1, value.shape[1:]), apart=False)

    def _refine(self, place: int) -> None:
        """Intersect the box of a step with its linear bounds.

        Not where all before is affine: behind a single linear layer, as is usual, intervals are exact.
        """
        if self.norm == "linf" and all(step.op is None or step.op.affine for step in self._steps[: place + 1]):
            return
        box = self._steps[place].box
        shape, count = box.lower.shape[1:], box.lower[0].numel()
        chunk = max(1, _BUDGET // (2 * len(self.x) * self.width))
        parts = []
        for units in torch.arange(count, device=self.x.device).split(chunk):
            one = F.one_hot(units, count).to(self.x).reshape(1, -1, *shape)
            both = torch.cat([one, -one], 1).expand(len(self.x), -1, *shape)
            parts.append(self._lower(place, both).unflatten(1, (2, len(units))))
        linear = torch.cat(parts, 2).unflatten(2, shape)
        lower, upper = torch.maximum(box.lower, linear[:, 0]), torch.minimum(box.upper, -linear[:, 1])
        self._steps[place].box = Box(torch.minimum(lower, upper), torch.maximum(lower, upper))

    # --- asking --------------------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Entries per image of the largest value."""
        return max(step.box.lower[0].numel() for step in self._steps)

    @property
    def answers(self) -> Box:
        """Interval bounds of the logits, B x K."""
        return self._steps[self.answer.index].box

    @property
    def logits(self) -> Tensor:
        """The logits of the images themselves, B x K; `bound` must have been told `nominal`."""
        logits = self._steps[self.answer.index].nominal
        assert logits is not None
        return logits

    def interval_margins(self, y: Tensor) -> Tensor:
        """Lower bounds of (logit of the label) - (logit of j), B x K, by intervals; 0 at the label itself.

        What is affine at the end of the network (the last layer, pooling before it) is merged into the differences
        (Gowal et al. 2018, section 3), so nothing is lost there.
        """
        return self._evaluate(self._pull(self.answer.index, self._differences(y), through_all=False))

    def crown_margins(self, y: Tensor) -> Tensor:
        """The same by one backward pass of linear bounds to the image."""
        return self._lower(self.answer.index, self._differences(y))

    def sure(self, y: Tensor, *, linear: bool) -> Tensor:
        """Which margins are positive beyond rounding by intervals, or (`linear`) by linear bounds; bool, B x K.

        Rounding is that of the bound's own sum and of the model's last sums, in which logits may cancel.
        """
        form = self._pull(self.answer.index, self._differences(y), through_all=False)
        size, margins = self._size(form), self._evaluate(form)
        unit = ROUNDING * torch.finfo(self.x.dtype).eps
        positive = margins > unit * size
        if linear:
            form = self._pull(self.answer.index, self._differences(y), through_all=True)
            positive |= self._evaluate(form) > unit * torch.maximum(size, self._size(form))
        return positive

    # --- linear bounds -------------------------------------------------------------------------------------------

    def _differences(self, y: Tensor) -> Tensor:
        classes = self.answers.lower.shape[1]
        label = F.one_hot(y, classes).to(self.x)
        return label.unsqueeze(1) - torch.eye(classes, dtype=label.dtype, device=label.device)

    def _lower(self, place: int, coefficients: Tensor) -> Tensor:
        return self._evaluate(self._pull(place, coefficients, through_all=True))

    def _pull(self, place: int, coefficients: Tensor, *, through_all: bool) -> _Form:
        """A lower bound of `coefficients . value of the step` that is linear in the values of steps further back.

        Goes back to the image, or (not `through_all`) only through affine operations.
        """
        waiting = {place: coefficients}
        form = _Form([], [coefficients.new_zeros(coefficients.shape[:2])])
        for index in range(place, -1, -1):
            if index not in waiting:
                continue
            current, step = waiting.pop(index), self._steps[index]
            if step.op is None or not (through_all or step.op.affine):
                form.terms.append((index, current))
                continue
            line = step.op.pull(current, *(self._steps[source].box for source in step.inputs))
            for source, part in zip(step.inputs, line.coefficients, strict=True):
                waiting[source] = waiting[source] + part if source in waiting else part
            if line.constant is not None:
                form.constants.append(line.constant)
        return form

    def _size(self, form: _Form) -> Tensor:
        """Sum of the largest absolute values of all parts."""
        total = torch.stack(form.constants).abs().sum(0)
        for place, coefficients in form.terms:
            box = self._steps[place].box
            total = total + dot(coefficients.abs(), torch.maximum(box.lower.abs(), box.upper.abs()))
        return total

    def _evaluate(self, form: _Form) -> Tensor:
        """The least value, B x S."""
        total = torch.stack(form.constants).sum(0)
        for place, coefficients in form.terms:
            middle, half = self._steps[place].box.split()
            lowest = dot(coefficients, middle) - dot(coefficients.abs(), half)
            if place == 0 and self.norm == "l2":
                length = torch.linalg.vector_norm(coefficients.flatten(2), dim=2)
                lowest = torch.maximum(lowest, dot(coefficients, self.x) - self.eps * length)
            total = total + lowest
        return total


def bound(
    model: nn.Module,
    x: Tensor,
    *,
    norm: LinfOrL2 = "linf",
    eps: float,
    nominal: bool = False,
    intermediate: Intermediate = "interval",
    traced: Trace | None = None,
) -> Bounds:
    """Bounds of `model` over the balls of radius `eps` around `x`, in the mode the model is in.

    Gradients flow to the parameters. Batch norm in train mode uses the statistics of the images themselves for the
    bounds too, and updates its running statistics once; it needs `nominal`.

    Args:
        model: From [0, 1] images to logits.
        x: Floats in [0, 1], B x C x H x W.
        norm: Norm of the balls.
        eps: Their radius.
        nominal: Also compute the logits of the images themselves.
        intermediate: How the values inside the network are bounded.
        traced: The model's operations, where they are known already.

    Raises:
        RequestError: An operation of the model cannot be bounded, or its answer is not B x K logits.
    """
    bounds = Bounds(x, norm=norm, eps=eps, nominal=nominal, intermediate=intermediate)
    bounds.answer = replay(model, traced or trace(model), bounds, bounds.image)
    return bounds


def bound_for_training(model: nn.Module, x: Tensor, *, eps: float) -> Bounds:
    """`bound` in Linf with the images' own logits; remembers the model's operations from step to step."""
    return bound(model, x, eps=eps, nominal=True, traced=kept_trace(model))


def followed(model: nn.Module, x: Tensor) -> tuple[Trace, Bounds]:
    """The model's operations, and bounds of it at a few images themselves.

    Raises:
        RequestError: The model cannot be bounded, or the traced operations give other answers than the model.
    """
    traced = trace(model)
    bounds = bound(model, x, eps=0.0, traced=traced)
    _check_same(bounds.answers.lower, model(x))
    return traced, bounds


def proved_radius(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: LinfOrL2,
    eps: float,
    linear: bool = False,
    intermediate: Intermediate = "interval",
) -> Tensor:
    """`eps` where every margin is positive beyond rounding, else 0; `linear` bounds for what intervals leave open.

    Raises:
        RequestError: The model cannot be bounded, or the traced operations give other answers than the model.
    """
    traced, probe = followed(model, x[:_PROBED])
    label = F.one_hot(y, probe.answers.lower.shape[1]) == 1
    proved = torch.zeros_like(y, dtype=torch.bool)
    for number in range(1 + linear):
        size = max(1, _BUDGET // (probe.width * (label.shape[1] if number else 4)))
        left = (~proved).nonzero().squeeze(1)
        for part in chunks(len(left), size, x.device):
            index = left[part]
            inner = intermediate if number else "interval"
            bounds = bound(model, x[index], norm=norm, eps=eps, intermediate=inner, traced=traced)
            proved[index] = (bounds.sure(y[index], linear=bool(number)) | label[index]).all(1)
    return proved.to(x.dtype) * eps


def _check_same(ours: Tensor, theirs: Tensor) -> None:
    """Forward hooks of the model, or in-place operations on a value used twice, would otherwise go unseen."""
    gap, size = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if gap > 1e-3 * (1 + size):
        raise RequestError(
            f"certified bounds: following the model's operations gives logits that differ from its own by {gap:.3g}; "
            "look for an in-place operation on a value that is used again"
        )
