"""What every course keeps: a training objective that follows single images over the epochs."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.testing.cases import digits, mixed_net
from bascule.testing.demands import demand, refusal
from bascule.training.contract import Course, Isolated
from bascule.training.loop import train
from bascule.training.settings import Training


def check_course(course: Course) -> None:
    """The contract of a course, beside that of every objective.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    for check in (check_continuing, check_end_of_epoch, check_samples):
        check(course)


class Kept:
    """Checkpoints in memory, written as a file would be; every one is kept, the last one is loaded."""

    def __init__(self, *states: bytes) -> None:
        self.states = list(states)

    def load(self) -> dict[str, Any] | None:
        """The last one."""
        return torch.load(BytesIO(self.states[-1]), weights_only=True) if self.states else None

    def save(self, state: dict[str, Any]) -> None:
        """One more."""
        file = BytesIO()
        torch.save(state, file)
        self.states.append(file.getvalue())


def few() -> Images:
    """120 training images."""
    return digits().train.at(torch.arange(120))


def check_continuing(course: Course) -> None:
    """Killed after any step and continued, a training ends in the same bytes and isolates the same images."""
    images, training = few(), Training(objective=course, epochs=4, batch_size=25, lr=0.01)
    told: list[Isolated] = []

    def trained(checkpoints: Kept) -> dict[str, Tensor]:
        net = mixed_net()
        train(net, images, training, seed=1, checkpoints=checkpoints, checkpoint_seconds=0, tell=told.append)
        return dict(net.state_dict())

    whole = Kept()
    wanted = trained(whole)
    for state in whole.states[::3]:
        found = trained(Kept(state))
        same = all(torch.equal(value, wanted[key]) for key, value in found.items())
        demand(same, "other bytes when continued")
    demand(all(torch.equal(one.isolated, told[0].isolated) for one in told), "others are isolated when continued")


def check_end_of_epoch(course: Course) -> None:
    """It looks at the model and leaves it as it is; the order of the set decides nothing."""
    images = few()
    order = torch.randperm(len(images), generator=stream(0, "order"))
    net = mixed_net().eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for epoch in range(1, 5):
        kept, drawn = [], []
        for these in (images, images.at(order)):
            memory = course.begin(these, epochs=4, generator=stream(0, "course"))
            with torch.no_grad():
                course.end_epoch(net, these, memory, epoch=epoch, epochs=4, generator=stream(0, "course", epoch))
            places = these.ids.argsort()
            kept.append({key: value[places] for key, value in memory.items() if value.shape[:1] == (len(images),)})
            mask = course.drawn_from(memory, epoch=4, epochs=4)
            drawn.append(mask if mask is None else mask[places])
        for key, value in kept[0].items():
            other = kept[1][key]
            exact = value.dtype == torch.bool
            same = torch.equal(value, other) if exact else torch.allclose(value, other, atol=1e-5)
            demand(same, f"the order of the set decides over {key}")
        if drawn[0] is not None:
            demand(drawn[0].dtype == torch.bool, f"what is drawn from is {drawn[0].dtype}, no mask")
            demand(drawn[1] is not None, "the order of the set decides whether all are drawn from")
            demand(torch.equal(drawn[0], drawn[1]), "the order of the set decides over what is drawn from")  # type: ignore[arg-type]
    same = all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    demand(same, "the model was changed")


def check_samples(course: Course) -> None:
    """Without word of which images a step is about, it is refused."""
    x, y = few().batch(torch.arange(32)), few().labels[:32]
    refusal(
        lambda: course.loss(mixed_net(), x, y, progress=0.5, generator=stream(0, "contract")),
        what="a step without samples",
        text="follows single images over a whole training",
    )
