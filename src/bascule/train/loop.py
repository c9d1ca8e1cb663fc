"""The training loop: the only one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.images import Images
from bascule.train._precision import Mixed
from bascule.train.compile import compiled
from bascule.train.settings import Training

_LOOK_EVERY = 50
"""Steps between two looks at the losses: a look waits for the device."""


class DivergedError(Exception):
    """The loss, a parameter or a running statistic stopped being finite."""

    def __init__(self, step: int, total: int, what: str) -> None:
        super().__init__(f"training diverged at step {step + 1} of {total}: {what} is not finite")
        self.step = step


class Checkpoints(Protocol):
    """Where an unfinished training is kept."""

    def load(self) -> dict[str, Any] | None:
        """The last saved state, or None."""

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state, atomically."""


class NoCheckpoints:
    """Keeps nothing."""

    def load(self) -> None:
        return None

    def save(self, state: dict[str, Any]) -> None:
        pass


Report = Callable[[int, int, float, float], None]
"""(step, total steps, latest loss, learning rate), called now and then."""


def train(
    model: nn.Module,
    images: Images,
    training: Training,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    checkpoint_seconds: float = 30.0,
    report: Report = lambda *_: None,
    compile_passes: bool = False,
) -> list[dict[str, float]]:
    """Train `model` in place on `images`; both are on the same device.

    Every random draw of a step comes from the stream (seed, "step", number), every order from (seed, "order", epoch).
    So a training that continues from a checkpoint ends in the same bytes as one that was never interrupted, wherever
    the checkpoint was taken.

    With `compile_passes` the network's passes are compiled, where the objective `compiles`; that changes no more than
    rounding does.

    Returns:
        The curve: one entry per epoch with `epoch` (from 1), `step`, `loss` (mean of the epoch), `lr` (of its last
        step) and `seconds` since the start.

    Raises:
        DivergedError: A loss, parameter or running statistic is not finite.
    """
    checkpoints = checkpoints or NoCheckpoints()
    batch_size = min(training.batch_size, len(images))
    per_epoch = training.steps_per_epoch(len(images))
    total = per_epoch * training.epochs
    optimizer = training.make_optimizer(model)
    generator = torch.Generator(device=images.device)
    losses = torch.zeros(per_epoch, device=images.device)
    curve: list[dict[str, float]] = []
    first, spent = 0, 0.0
    state = checkpoints.load()
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        losses.copy_(state["losses"])
        curve, first, spent = state["curve"], state["step"], state["seconds"]
    began = saved = time.monotonic()
    order = torch.empty(0)
    with _passes(model, training, compile_passes=compile_passes) as asked, rng.borrowed_global_stream(seed, "train"):
        asked.train()
        for step in range(first, total):
            epoch, place = divmod(step, per_epoch)
            if place == 0 or step == first:
                order = _order(len(images), seed, epoch).to(images.device)
            lr = training.lr * training.lr_share(step, total)
            for group in optimizer.param_groups:
                group["lr"] = lr
            index = order[place * batch_size : (place + 1) * batch_size]
            losses[place] = _step(asked, images, index, training, optimizer, seed, step, step / total, generator)
            last = place == per_epoch - 1
            now = time.monotonic()
            due = now - saved >= checkpoint_seconds
            if last or due or step % _LOOK_EVERY == 0:
                _check_finite(losses[: place + 1], model, step, place, total)
                report(step + 1, total, float(losses[place]), lr)
            if last:
                seconds = spent + now - began
                curve.append(
                    {"epoch": epoch + 1, "step": step + 1, "loss": float(losses.mean()), "lr": lr, "seconds": seconds}
                )
            if due and step + 1 < total:
                checkpoints.save(
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "losses": losses,
                        "curve": curve,
                        "step": step + 1,
                        "seconds": spent + now - began,
                    }
                )
                saved = time.monotonic()
    model.eval()
    return curve


@contextmanager
def _passes(model: nn.Module, training: Training, *, compile_passes: bool) -> Iterator[nn.Module]:
    """What the objective is given: the network, with its passes compiled or in mixed precision where asked."""
    if compile_passes and training.objective.compiles:
        with compiled(model) as quick, _passes(quick, training, compile_passes=False) as found:
            yield found
    else:
        yield Mixed(model) if training.precision == "bfloat16" else model


def _step(
    model: nn.Module,
    images: Images,
    index: Tensor,
    training: Training,
    optimizer: torch.optim.Optimizer,
    seed: int,
    step: int,
    progress: float,
    generator: torch.Generator,
) -> Tensor:
    """One step in the order of the study: stamped images, augment, perturb (the objective's), descend."""
    number = rng.derive(seed, "step", step)
    generator.manual_seed(number)
    torch.manual_seed(number)  # dropout; the caller puts the global stream back
    x = training.augment.apply(images.batch(index), generator=generator)
    optimizer.zero_grad(set_to_none=True)
    loss = training.objective.loss(model, x, images.labels[index], progress=progress, generator=generator)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=rng.stream(seed, "order", epoch))


def _check_finite(losses: Tensor, model: nn.Module, step: int, place: int, total: int) -> None:
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        raise DivergedError(step - place + int(bad[0]), total, "the loss")
    statistics = [item for item in model.named_buffers() if item[0].endswith(("running_mean", "running_var"))]
    for kind, items in (("parameter", model.named_parameters()), ("statistic", statistics)):
        for name, values in items:
            if not bool(values.isfinite().all()):
                raise DivergedError(step, total, f"{kind} {name}")
