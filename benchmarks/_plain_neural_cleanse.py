"""Neural Cleanse written down plainly: one class after another, PyTorch's autograd and Adam, the published schedule.

It shares nothing with `bascule.scanners`. The defaults are those of the authors' released script for GTSRB: mask and
pattern in tanh space from a random start, Adam (0.1, betas 0.5 and 0.9), batches of 32, a look after every round of 31
batches; the cost of the mask starts at 0, becomes 1e-3 after 5 good looks, doubles after 5 good looks and is divided by
2^1.5 after 5 bad ones; a class stops when 25 looks brought no smaller mask and the cost has moved both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Found:
    """The smallest mask that reached the wanted success; the last one where none did."""

    mask: Tensor
    """1 x H x W."""
    pattern: Tensor
    """C x H x W."""
    norm: float
    """Mean L1 norm of the mask over the round in which it was found."""
    reached: bool
    """Whether any round reached the wanted success."""
    steps: int
    """Gradient steps taken."""


def _unit(values: Tensor) -> Tensor:
    return torch.tanh(values) / 2 + 0.5


def invert(
    model: nn.Module,
    x: Tensor,
    target: int,
    *,
    generator: torch.Generator,
    rounds: int = 1000,
    batch: int = 32,
    per_round: int = 31,
    wanted: float = 0.99,
    patience: int = 5,
    stop_after: int = 25,
    first_cost: float = 1e-3,
    factor: float = 2.0,
) -> Found:
    """Reverse-engineer the smallest trigger to class `target` on images `x`."""
    start = torch.rand((1 + x.shape[1], *x.shape[2:]), generator=generator)
    raw = torch.atanh((start - 0.5) * (2 - 1e-6)).to(x)
    raw_mask, raw_pattern = raw[:1].clone().requires_grad_(True), raw[1:].clone().requires_grad_(True)
    optimizer = torch.optim.Adam([raw_mask, raw_pattern], lr=0.1, betas=(0.5, 0.9))
    cost, good, bad, started, raised, lowered, idle = 0.0, 0, 0, 0, False, False, 0
    best, smallest, order, steps = None, float("inf"), torch.empty(0, dtype=torch.int64), 0
    for _ in range(rounds):
        norms, hits, seen = 0.0, 0, 0
        for _ in range(per_round):
            if len(order) < batch:
                order = torch.randperm(len(x), generator=generator)
            part, order = x[order[:batch].to(x.device)], order[batch:]
            mask, pattern = _unit(raw_mask), _unit(raw_pattern)
            logits = model(part * (1 - mask) + mask * pattern)
            y = torch.full((len(part),), target, device=x.device)
            loss = F.cross_entropy(logits, y) + cost * mask.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            norms += float(mask.detach().sum())
            hits += int((logits.argmax(1) == y).sum())
            seen += len(part)
            steps += 1
        norm, enough = norms / per_round, hits / seen >= wanted
        improved = enough and norm < smallest
        if improved:
            best, smallest = (_unit(raw_mask).detach().clone(), _unit(raw_pattern).detach().clone()), norm
        if best is not None:
            idle = 0 if improved else idle + 1
        if raised and lowered and idle >= stop_after:
            break
        started = started + 1 if enough and cost == 0 else 0
        if started >= patience:
            cost, good, bad, raised, lowered = first_cost, 0, 0, False, False
        good, bad = (good + 1, 0) if enough else (0, bad + 1)
        if good >= patience:
            good, cost, raised = 0, cost * factor, True
        elif bad >= patience:
            bad, cost, lowered = 0, cost / factor**1.5, True
    if best is None:
        return Found(_unit(raw_mask).detach(), _unit(raw_pattern).detach(), norm, False, steps)
    return Found(*best, smallest, True, steps)
