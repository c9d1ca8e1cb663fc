"""The training loop: the only one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from bascule.core import rng
from bascule.core.errors import DivergedError, RequestError
from bascule.core.images import Images
from bascule.core.lending import lending
from bascule.core.team import ALONE, Team
from bascule.training.capture import capturing
from bascule.training.compile import compile_model
from bascule.training.contract import Isolated
from bascule.training.precision import Mixed
from bascule.training.settings import Training
from bascule.training.steps import Steps
from bascule.training.synced import synchronised

_LOOK_EVERY = 50
"""Steps between two looks at the losses: a look waits for the device."""


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

Look = Callable[[int], Mapping[str, float]]
"""Called at the end of an epoch (from 1) with its number: what somebody sees of the model then, by name; nothing where
nobody looks. It leaves the model as it is and draws from no stream of the training."""

AtEpoch = Callable[[Mapping[str, float]], None]
"""Told each point of the curve once its epoch has ended; of a training that continues, those before at once."""


class Judge(Protocol):
    """Says how good the model is at the end of an epoch, on images that it is not trained on; as careful as a look."""

    name: str
    """What it tells, as the curve calls it."""

    def __call__(self, epoch: int) -> float:
        """How good it is after this epoch (from 1); higher is better."""


def train(
    model: nn.Module,
    images: Images,
    training: Training,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    checkpoint_seconds: float = 30.0,
    report: Report = lambda *_: None,
    look: Look = lambda _: {},
    judge: Judge | None = None,
    tell: Callable[[Isolated], None] = lambda _: None,
    at_epoch: AtEpoch = lambda _: None,
    compile_passes: bool = False,
    capture_steps: bool = False,
    team: Team = ALONE,
) -> list[dict[str, float]]:
    """Train `model` in place on `images`; both are on the same device.

    Every random draw of a step comes from the stream (seed, "step", number), every order from (seed, "order", epoch).
    So a training that continues from a checkpoint ends in the same bytes as one that was never interrupted, wherever
    the checkpoint was taken.

    With `compile_passes` the network's passes are compiled, where the objective `compiles`: it changes no more than
    rounding does. With `capture_steps` steps are captured once they are steady: it changes nothing.

    The model ends with the weights that are kept: of the last epoch, or of the best (`best_epoch`) by what `judge`
    says; averaged ones where there are any, which `look` and `judge` see along the way too. A course is told the end of
    each epoch and draws from (seed, "course", epoch); `tell` is told at the end which images it has isolated, if any.

    The processes of a `team` all call this alike and divide the shares of each batch (`Training.shares`); the first
    alone looks, judges and keeps checkpoints, and all end with the same weights and the same curve.

    Returns:
        The curve: one entry per epoch with `epoch` (from 1), `step`, `loss` (mean of the epoch), `lr` (of its last
        step) and `seconds` since the start, looks not counted; what `judge` said, where the best epoch is kept; where
        there was a `look`, what it saw and `probe_seconds`. A training that continues keeps what was seen before.

    Raises:
        DivergedError: A loss, parameter or running statistic is not finite.
        RequestError: Not one logit per class in train mode, nobody judges for `best`, or a batch cannot be divided.
    """
    judge = _judge_of(training, judge)
    steps = Steps(model, images, training, seed=seed, team=team)
    done = _Done.begun(steps, checkpoints or NoCheckpoints(), at_epoch)
    with _taking(steps, compile_passes=compile_passes, capture_steps=capture_steps) as take:
        for step in range(done.steps, steps.total):
            place, last, lr = step % steps.per_epoch, (step + 1) % steps.per_epoch == 0, steps.lr(step)
            done.losses[place] = take(step)
            steps.follow(step)
            done.steps = step + 1
            due = done.is_due(checkpoint_seconds, team)
            if last or due or step % _LOOK_EVERY == 0:
                team.share(partial(_check_finite, done.losses[: place + 1], model, step, place, steps.total))
                report(step + 1, steps.total, float(done.losses[place]), lr)
            if last:
                done.end_epoch(steps, lr, look, judge)
            if due and step + 1 < steps.total:
                done.save(steps)
    done.finish(steps, tell)
    return done.curve


def _judge_of(training: Training, judge: Judge | None) -> Judge | None:
    """Who is asked; None where the last epoch is kept, whatever it is like."""
    if training.keep == "last":
        return None
    if judge is None:
        raise RequestError("nobody judges the epochs here, so that no best one can be kept", place=("keep",))
    return judge


def best_epoch(curve: Sequence[Mapping[str, float]], name: str) -> int:
    """The epoch (from 1) whose weights are kept, by what stands under `name`: the first of the highest."""
    return 1 + max(range(len(curve)), key=lambda place: curve[place][name])


@dataclass
class _Done:
    """How far a training is: with weights and optimiser all that a checkpoint holds."""

    losses: Tensor
    """Of the steps of the current epoch."""
    at_epoch: AtEpoch
    checkpoints: Checkpoints
    curve: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    earlier: float = 0.0
    """Seconds spent before the last interruption."""
    began: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    """When the last checkpoint was, or the start."""
    saved_at: int = 0
    """The steps that there were then."""
    ask_at: int = 0
    """The steps from which on the first process is asked whether it is time for the next."""
    best: dict[str, Tensor] | None = None
    """The weights of the best epoch so far, where that is kept."""

    @classmethod
    def begun(cls, steps: Steps, checkpoints: Checkpoints, at_epoch: AtEpoch) -> _Done:
        """Where a training starts: at a checkpoint, if there is one; in a team all where the first one does."""
        losses = torch.zeros(steps.per_epoch, device=steps.images.device)
        done = cls(losses=losses, at_epoch=at_epoch, checkpoints=checkpoints)
        state = steps.team.first(checkpoints.load)
        if state is None and steps.team.size > 1:
            state = steps.team.first(lambda: done.state(steps))
        if state is not None:
            done.restore(state, steps)
        return done

    def end_epoch(self, steps: Steps, lr: float, look: Look, judge: Judge | None) -> None:
        """One more point of the curve, the weights if no epoch before was as good, and what a course does."""
        epoch = self.steps // steps.per_epoch
        with steps.kept():
            self.curve.append(steps.team.first(lambda: self._seen(epoch, lr, look, judge)))
            self._tell(self.curve[-1:])
            if judge is not None and best_epoch(self.curve, judge.name) == len(self.curve):
                self.best = {name: value.detach().clone() for name, value in steps.model.state_dict().items()}
        if (course := steps.course) is not None:
            remembered = steps.team.first(lambda: course.end_epoch(steps.model, epoch))
            if not steps.team.leads:
                course.restore(remembered)

    def _seen(self, epoch: int, lr: float, look: Look, judge: Judge | None) -> dict[str, float]:
        """A point of the curve."""
        loss = float(self.losses.mean())
        judged = {} if judge is None else {judge.name: judge(epoch)}
        entry = {"epoch": epoch, "step": self.steps, "loss": loss, "lr": lr, "seconds": self.seconds(), **judged}
        began = time.monotonic()
        seen = look(epoch)
        spent = time.monotonic() - began
        self.began += spent
        return {**entry, **seen, "probe_seconds": spent} if seen else entry

    def _tell(self, entries: Sequence[Mapping[str, float]]) -> None:
        """Tell of points of the curve, in no time of the training."""
        began = time.monotonic()
        for entry in entries:
            self.at_epoch(dict(entry))
        self.began += time.monotonic() - began

    def finish(self, steps: Steps, tell: Callable[[Isolated], None]) -> None:
        """Give the model the weights that are kept; it is in eval mode afterwards. Tell what a course has isolated."""
        if steps.course is not None and (isolated := steps.course.isolated()) is not None:
            tell(isolated)
        if self.best is not None:
            steps.model.load_state_dict(self.best)
        elif steps.average is not None:
            steps.average.give(steps.model)
        steps.model.eval()

    def seconds(self) -> float:
        """Since the start, without interruptions and looks."""
        return self.earlier + time.monotonic() - self.began

    def is_due(self, seconds: float, team: Team) -> bool:
        """Whether it is time for a checkpoint, so many seconds after the last; by the clock of the first process, which
        a team asks half-way there, half-way through the rest, and so on, rather than in every step; at the latest after
        twice as many steps, since the first may be begun on a device long before they are done."""
        if self.steps < self.ask_at:
            return False
        due, self.ask_at = team.agreed(self._look_at_clock(seconds, team))
        return due

    def _look_at_clock(self, seconds: float, team: Team) -> tuple[bool, int]:
        """Whether it is time, and from which step on to ask again."""
        gone = time.monotonic() - self.saved
        if gone >= seconds or team.size == 1:
            return gone >= seconds, self.steps
        since = self.steps - self.saved_at
        left = (seconds - gone) / gone * since if gone > 0 else 0
        return False, self.steps + max(1, min(int(left / 2), since))

    def save(self, steps: Steps) -> None:
        """One more checkpoint."""
        steps.team.first(lambda: self.checkpoints.save(self.state(steps)))
        self.saved, self.saved_at = time.monotonic(), self.steps

    def state(self, steps: Steps) -> dict[str, Any]:
        """What a checkpoint holds."""
        optimizer = steps.optimizer.state_dict()
        groups = [{**group, "lr": float(group["lr"])} for group in optimizer["param_groups"]]  # captured: a tensor
        return {
            "model": steps.model.state_dict(),
            "optimizer": {**optimizer, "param_groups": groups},
            "losses": self.losses,
            "curve": self.curve,
            "step": self.steps,
            "seconds": self.seconds(),
            **({} if steps.average is None else {"average": steps.average.state()}),
            **({} if self.best is None else {"best": self.best}),
            **({} if steps.course is None else {"course": steps.course.state()}),
        }

    def restore(self, state: dict[str, Any], steps: Steps) -> None:
        """Go on from a checkpoint."""
        steps.model.load_state_dict(state["model"])
        steps.optimizer.load_state_dict(state["optimizer"])
        self.losses.copy_(state["losses"])
        self.curve, self.steps, self.earlier = state["curve"], state["step"], state["seconds"]
        self.saved_at = self.steps
        self.best = state.get("best")
        self._tell(self.curve)
        if steps.average is not None:
            steps.average.restore(state["average"])
        if steps.course is not None:
            steps.course.restore(state["course"])


@contextmanager
def _taking(steps: Steps, *, compile_passes: bool, capture_steps: bool) -> Iterator[Callable[[int], Tensor]]:
    """What takes a step by its number and gives its loss; the model is in train mode meanwhile."""
    training, team = steps.training, steps.team
    with ExitStack() as stack:
        if together := training.sync_batch_norm and team.size > 1:
            stack.enter_context(synchronised(steps.model, team))
        compiles = compile_passes and not together  # compiled code does not meet others on its way
        net = stack.enter_context(_passes(steps.model, training, compile_passes=compiles))
        stack.enter_context(lending(net, classes=len(steps.images.classes)))
        stack.enter_context(rng.borrowed_global_stream(steps.seed, "train"))
        stack.enter_context(steps.ahead)
        net.train()
        yield stack.enter_context(capturing(steps, net)) if capture_steps else partial(steps.take, net)


@contextmanager
def _passes(model: nn.Module, training: Training, *, compile_passes: bool) -> Iterator[nn.Module]:
    """What the objective is given: the network, with its passes compiled or in mixed precision where asked."""
    if compile_passes and training.objective.compiles:
        with compile_model(model) as quick, _passes(quick, training, compile_passes=False) as net:
            yield net
    else:
        yield Mixed(model) if training.precision == "bfloat16" else model


def _check_finite(losses: Tensor, model: nn.Module, step: int, place: int, total: int) -> None:
    """Look at the losses, and at all parameters and statistics at once: each look waits for the device."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        raise _diverged(step - place + int(bad[0]), total, "the loss")
    watched: dict[str, Tensor] = {f"parameter {name}": value for name, value in model.named_parameters()}
    for name, value in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            watched[f"statistic {name}"] = value
    # The largest size of an entry is finite exactly where all are; a sum of squares could overflow.
    floats = [value.detach() for value in watched.values() if value.is_floating_point() and value.numel()]
    if bool(get_total_norm(floats, norm_type=torch.inf).isfinite()):
        return
    for name, value in watched.items():
        if not bool(value.isfinite().all()):
            raise _diverged(step, total, name)


def _diverged(step: int, total: int, what: str) -> DivergedError:
    return DivergedError(f"training diverged at step {step + 1} of {total}: {what} is not finite", step=step)
