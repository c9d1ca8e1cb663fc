"""What every training objective keeps, whichever file or package it comes from; a course also `courses.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.images import Images, Splits, as_bytes
from bascule.core.inference import predict
from bascule.core.returned import returned
from bascule.core.rng import borrowed_global_stream, stream
from bascule.testing.cases import architecture, circumstances, digits, mixed_net
from bascule.testing.courses import check_course
from bascule.testing.demands import demand, one_sentence
from bascule.testing.settings import check_settings
from bascule.training.contract import Course, CrossEntropy, Objective, Samples
from bascule.training.loop import train
from bascule.training.settings import Training

PROGRESSES = (0.0, 0.5, 0.999)
"""Shares of a training at which a loss is asked for."""
EPOCHS = 20
"""Of the training in which a course is asked for the loss of a step."""


@one_sentence
def check_objective(objective: Objective) -> None:
    """The contract of a training objective: a loss that every parameter learns from, and from which digits are learnt.

    One that follows single images over the epochs (`Course`) must also end in the same bytes when it is continued.

    Args:
        objective: With settings that suit the embedded digits and little time.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(objective)
    for progress in PROGRESSES:
        for norm in (True, False):
            check_loss(objective, progress, norm=norm)
        check_inputs(objective, progress)
    for check in (check_cross_entropy, check_learning, check_mean, check_generator, check_precision):
        check(objective)
    if isinstance(objective, Course):
        check_course(objective)


def batch() -> tuple[Tensor, Tensor]:
    """32 training images of one's own, and their labels."""
    index = torch.arange(32)
    return digits().train.batch(index), digits().train.labels[index].clone()


def at_step(objective: Objective, x: Tensor, y: Tensor, progress: float) -> Objective:
    """The objective of a step on all of a set of images, at this share of a training; of any but a course, itself."""
    if not isinstance(objective, Course):
        return objective
    places = torch.arange(len(x))
    images = Images(pixels=as_bytes(x), labels=y, ids=places, classes=tuple("0123456789"))
    memory = objective.begin(images, epochs=EPOCHS, generator=stream(0, "course"))
    return objective.at(Samples(places, 1 + int(progress * EPOCHS), EPOCHS, memory))


def _loss_of(objective: Objective, net: nn.Module, x: Tensor, y: Tensor, progress: float, seed: int = 0) -> Tensor:
    with borrowed_global_stream(seed, "dropout"):
        step = at_step(objective, x, y, progress)
        loss = step.loss(net, x, y, progress=progress, generator=stream(seed, "contract"))
        return returned(loss, Tensor, who=step, method="loss")


def check_loss(objective: Objective, progress: float = 0.5, *, norm: bool = True) -> None:
    """One loss: a finite scalar that every parameter can learn from, and nothing else has changed."""
    net, (x, y), given = mixed_net(norm=norm), batch(), batch()
    before, weights = circumstances(net), [parameter.detach().clone() for parameter in net.parameters()]
    loss = _loss_of(objective, net, x, y, progress)
    demand(loss.shape == (), "the loss is not a scalar")
    demand(loss.isfinite(), "the loss is not finite")
    # a course may climb
    demand(loss > 0 or (isinstance(objective, Course) and loss), "nothing left to learn")
    demand(circumstances(net) == before, "mode, requires_grad or hooks were left changed")
    demand(torch.equal(x, given[0]), "the images were modified")
    demand(torch.equal(y, given[1]), "the labels were modified")
    demand(not x.requires_grad, "the images want a gradient afterwards")
    demand(all(parameter.grad is None for parameter in net.parameters()), "gradients were left behind")
    same = all(torch.equal(now, then) for now, then in zip(net.parameters(), weights, strict=True))
    demand(same, "weights were changed")
    loss.backward()
    for name, parameter in net.named_parameters():
        if name == "0.bias":
            demand(parameter.grad is None, f"{name} was frozen and gets a gradient")
            continue
        gradient = parameter.grad
        if gradient is None:
            raise AssertionError(f"{name} gets no gradient")
        demand(gradient.isfinite().all(), f"the gradient of {name} is not finite")
        demand(gradient.any(), f"{name} learns nothing")
    again = _loss_of(objective, mixed_net(norm=norm), x, y, progress)
    demand(torch.equal(again, loss.detach()), "the same streams give another loss")


def check_inputs(objective: Objective, progress: float = 0.5) -> None:
    """The images of a step: images again, and nothing else has changed."""
    net, (x, y), given = mixed_net(), batch(), batch()
    before, memory = circumstances(net), [value.clone() for value in net.state_dict().values()]
    with borrowed_global_stream(0, "dropout"):
        inputs = objective.inputs(net, x, y, progress=progress, generator=stream(0, "contract"))
    demand(inputs.shape == x.shape, f"the inputs are {tuple(inputs.shape)}, the images {tuple(x.shape)}")
    demand(inputs.dtype == x.dtype, f"the inputs are {inputs.dtype}, the images {x.dtype}")
    demand(not inputs.requires_grad, "the inputs want a gradient")
    demand(inputs.min() >= 0, "a pixel is darker than black")
    demand(inputs.max() <= 1, "a pixel is brighter than white")
    demand(torch.equal(x, given[0]), "the images were modified")
    demand(circumstances(net) == before, "mode, requires_grad or hooks were left changed")
    same = all(torch.equal(now, then) for now, then in zip(net.state_dict().values(), memory, strict=True))
    demand(same, "weights or statistics were changed by looking for inputs")
    demand(all(parameter.grad is None for parameter in net.parameters()), "gradients were left behind")


def check_cross_entropy(objective: Objective) -> None:
    """One that says it is cross-entropy on its inputs (`CrossEntropy`) is that; any other has a loss of its own."""
    if not isinstance(objective, CrossEntropy):
        return
    x, y = batch()
    inputs = objective.inputs(mixed_net(norm=False), x, y, progress=0.9, generator=stream(0, "contract"))
    wanted = F.cross_entropy(mixed_net(norm=False)(inputs), y)
    found = _loss_of(objective, mixed_net(norm=False), x, y, 0.9)
    demand(torch.equal(found, wanted), "its loss is not the cross-entropy on its inputs")


def check_learning(objective: Objective) -> None:
    """A short training turns guessing into knowing."""
    before, after = (_accuracy_after(objective, epochs, digits()) for epochs in (0, 6))
    demand(before < 0.3, f"an untrained net has an accuracy of {before:.2f}")
    demand(after > 0.7, f"nothing was learnt: the accuracy is {after:.2f}")


def _accuracy_after(objective: Objective, epochs: int, splits: Splits) -> float:
    net: nn.Module = architecture().initialised(splits.train.size, 10, seed=0)
    if epochs:
        training = Training(objective=objective, epochs=epochs, batch_size=32, lr=0.01, schedule="one-cycle")
        train(net, splits.train, training, seed=0)
    return (predict(net, splits.test) == splits.test.labels).float().mean().item()


def check_mean(objective: Objective) -> None:
    """The loss is a mean: a batch twice as large of the same images does not weigh twice."""
    x, y = batch()
    once, twice = (
        _loss_of(objective, mixed_net(norm=False), torch.cat([x] * times), torch.cat([y] * times), 0.9).item()
        for times in (1, 2)
    )
    demand(abs(twice - once) <= 0.2 * abs(once), f"a batch twice as large has loss {twice:.3f} instead of {once:.3f}")


def check_generator(objective: Objective) -> None:
    """Nothing is drawn from the global generator."""
    before = torch.get_rng_state()
    step = at_step(objective, *batch(), 0.5)
    step.loss(mixed_net(norm=False), *batch(), progress=0.5, generator=stream(0, "contract"))
    demand(torch.equal(torch.get_rng_state(), before), "the global generator was used")


def check_precision(objective: Objective) -> None:
    """A model in double precision has a loss in double precision."""
    x, y = batch()
    loss = _loss_of(objective, mixed_net().double(), x.double(), y, 0.9)
    demand(loss.dtype == torch.float64, f"in double precision the loss is {loss.dtype}")
