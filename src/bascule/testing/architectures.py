"""What every architecture keeps, whichever file or package it comes from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.rng import stream
from bascule.models.contract import Architecture
from bascule.testing.demands import demand, one_sentence
from bascule.testing.settings import check_settings

SIZES = ((1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 20, 12), (3, 9, 15))
"""Channels, height and width of the images that networks are tried on."""
TINY = ((1, 1, 1), (3, 2, 2), (1, 1, 28))
"""Sizes that most networks refuse."""


@one_sentence
def check_architecture(architecture: Architecture) -> None:
    """The contract of an architecture: logits that hang on the image and on every parameter, drawn from the seed alone.

    It may refuse sizes of images with a `RequestError`, but not all of them.

    Args:
        architecture: With settings that make a small network.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(architecture)
    check_taken(architecture)
    for size in SIZES:
        for classes in (2, 10):
            check_network(architecture, size, classes)
        check_alone(architecture, size)
        check_layout(architecture, size)
    for size in TINY:
        check_tiny(architecture, size)


def _net_of(architecture: Architecture, size: tuple[int, int, int], classes: int, *, seed: int = 0) -> nn.Module | None:
    """A network; None where the architecture refuses the size."""
    try:
        return architecture.initialised(size, classes, seed=seed)
    except RequestError:
        return None


def noise(size: tuple[int, int, int], count: int = 5) -> Tensor:
    """Random images."""
    return torch.rand(count, *size, generator=stream(0, "images"))


def check_network(architecture: Architecture, size: tuple[int, int, int], classes: int) -> bool:
    """Logits of the right shape that hang on every parameter and on the image, drawn from the seed alone.

    Returns:
        Whether the size is taken; nothing is checked where it is refused.
    """
    before = torch.get_rng_state()
    net = _net_of(architecture, size, classes)
    demand(torch.equal(torch.get_rng_state(), before), "the global generator was used")
    if net is None:
        return False
    fresh = {key: value.clone() for key, value in net.state_dict().items()}  # the pass moves running statistics
    x = noise(size).requires_grad_(True)
    logits = net(x)
    demand(logits.shape == (5, classes), f"five images of {classes} classes have logits of {tuple(logits.shape)}")
    demand(logits.isfinite().all(), "a logit is not finite")
    sums = logits.detach().sum(1), logits.detach().exp().sum(1)
    demand(not torch.allclose(sums[0], torch.ones(5), atol=1e-3), "these sum to one: not logits")
    demand(not torch.allclose(sums[1], torch.ones(5), atol=1e-3), "these are log-probabilities")
    logits.square().sum().backward()
    if x.grad is None:
        raise AssertionError("the image gets no gradient")
    demand(x.grad.flatten(1).any(1).all(), "the image does not matter")
    # A parameter may rest for these few images, like a dead ReLU's bias, but no whole tensor may.
    idle = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    demand(not idle, f"the answer does not hang on {', '.join(idle)}")
    torch.rand(3)  # other draws in between must not matter
    again, other = (architecture.initialised(size, classes, seed=seed).state_dict() for seed in (0, 1))
    demand(all(torch.equal(value, again[key]) for key, value in fresh.items()), "the seed does not decide")
    demand(not all(torch.equal(value, other[key]) for key, value in fresh.items()), "every seed is the same")
    return True


def check_taken(architecture: Architecture) -> None:
    """No architecture may get through by refusing everything."""
    refused = []
    for size in SIZES:
        try:
            architecture.build(size, 10)
        except RequestError as error:
            refused.append(str(error))
    demand(len(refused) < len(SIZES), f"every size is refused: {refused[:1]}")


def check_tiny(architecture: Architecture, size: tuple[int, int, int]) -> None:
    """Tiny images are taken or refused."""
    try:
        net = architecture.build(size, 3)
    except RequestError:
        return
    shape = net.eval()(noise(size)).shape
    demand(shape == (5, 3), f"five images of {size} have logits of {tuple(shape)}")


def check_alone(architecture: Architecture, size: tuple[int, int, int] = (1, 28, 28)) -> bool:
    """An image alone gets the same answer as in a batch; whether the size is taken."""
    net = _net_of(architecture, size, 10)
    if net is None:
        return False
    x = noise(size)
    alone = torch.cat([net.eval()(image) for image in x.split(1)])
    demand(torch.allclose(alone, net(x), atol=1e-5), "an image alone gets another answer than in a batch")
    return True


def check_layout(architecture: Architecture, size: tuple[int, int, int] = (3, 32, 32)) -> bool:
    """Its weights can be kept, loaded into another one and laid out anew; whether the size is taken."""
    net, copy = (_net_of(architecture, size, 10, seed=seed) for seed in (0, 1))
    if net is None or copy is None:
        return False
    copy.load_state_dict(net.state_dict())
    copy = copy.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = noise(size)
    found, wanted = copy(x.contiguous(memory_format=torch.channels_last)), net.eval()(x)
    demand(torch.allclose(found, wanted, atol=1e-5), "laid out anew, the same weights give another answer")
    return True
