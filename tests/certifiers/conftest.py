"""What the tests of bounds share: networks with every operation that can be followed, and attacks on bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core import catalog, rng
from bascule.core.images import Splits
from bascule.training.loop import train
from bascule.training.settings import Training

SIZE, CLASSES = (2, 6, 6), 4


class Residual(nn.Module):
    """Pre-activation units; the second with average pooling and zero-padded channels on its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in (4, 4, 4, 8, 8))
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(4, 4, 3, padding=1, bias=False),
                nn.Conv2d(4, 4, 3, padding=1),
                nn.Conv2d(4, 8, 3, stride=2, bias=False),
                nn.Conv2d(8, 8, 3, padding=1),
            ]
        )
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.convs[1](F.leaky_relu(self.norms[1](self.convs[0](F.relu(self.norms[0](x)))), 0.1))
        inner = self.convs[2](F.pad(F.relu(self.norms[2](x)), (0, 1, 0, 1)))
        inner = self.convs[3](F.relu(self.norms[3](inner)))
        x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 2, 2)) + inner
        return self.head(F.leaky_relu(self.norms[4](x), 0.1).mean((2, 3)))


class Functional(nn.Module):
    """Everything by function and method: normalisation, slices, two branches, concatenation, subtraction."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.6]).reshape(1, 2, 1, 1))
        self.std = nn.Parameter(torch.tensor([0.5, 0.25]).reshape(2, 1, 1), requires_grad=False)
        self.weight = nn.Parameter(torch.randn(3, 2, 3, 3) / 3)
        self.other = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.head = nn.Linear(72 + 12, CLASSES)

    def forward(self, x: Tensor, noisy: bool = False) -> Tensor:
        if noisy:
            raise NotImplementedError
        x = 1 - (x - self.mean) / self.std * -0.5
        first = F.relu(F.conv2d(x, self.weight, padding=1))[:, :, ::2, ::2]
        second = torch.relu(self.other(x).neg().add(0.8))
        both = torch.cat([first - second, 0.5 * second], dim=1)
        both = F.relu(torch.add(both, torch.cat([first, first], 1), alpha=0.3))
        small = F.max_pool2d(both, 2, stride=1).sum(dim=-1).view(both.size(0), -1)
        wide = F.pad(both, (-1, 1, 0, 1), value=0.3).permute(0, 2, 3, 1).contiguous().view(x.shape[0], -1)
        return self.head(torch.cat((wide, small), 1))


class Normalised(nn.Module):
    """Constants made inside the forward pass, in front of a network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - torch.tensor([0.3, 0.5]).reshape(2, 1, 1)) * -3.0)


def _flat(*layers: nn.Module) -> nn.Module:
    """These layers, flattened, with a linear layer behind."""
    inner = nn.Sequential(*layers, nn.Flatten())
    return nn.Sequential(*inner, nn.Linear(inner.eval()(torch.zeros(1, *SIZE)).shape[1], CLASSES))


NETS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES)),
    "two-linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 9), nn.Identity(), nn.Linear(9, CLASSES)),
    "mlp": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(72, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, CLASSES)
    ),
    "ends-in-relu": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 9), nn.Linear(9, CLASSES), nn.ReLU()),
    "affine-tail": lambda: nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "conv": lambda: _flat(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 5, 2, padding=1), nn.LeakyReLU(0.2)),
    "conv-odd": lambda: _flat(
        nn.Conv2d(2, 4, (3, 2), stride=(2, 3), padding=(0, 1), dilation=(1, 2), groups=2), nn.ReLU()
    ),
    "same-even": lambda: _flat(nn.Conv2d(2, 3, (4, 3), padding="same", bias=False), nn.ReLU(), nn.Conv2d(3, 3, 3)),
    "reflect": lambda: _flat(nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect"), nn.ReLU()),
    "batch-norm": lambda: _flat(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU()
    ),
    "batch-norm-1d": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(72, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, CLASSES)
    ),
    "max-pool": lambda: _flat(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(4, 4, 2)),
    "max-pool-first": lambda: _flat(nn.MaxPool2d(2, stride=3), nn.Conv2d(2, 6, 2), nn.ReLU()),
    "max-pool-overlap": lambda: _flat(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(3, stride=1, padding=1)),
    "avg-pool": lambda: _flat(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, stride=2, padding=1)),
    "adaptive": lambda: _flat(nn.Conv2d(2, 4, 3, padding=1), nn.LeakyReLU(0.01), nn.AdaptiveAvgPool2d((2, 3))),
    "padded": lambda: _flat(
        nn.ZeroPad2d((0, 1, -1, 2)),
        nn.Conv2d(2, 3, 3, stride=2),
        nn.ReLU(),
        nn.ConstantPad2d(1, -0.7),
        nn.Conv2d(3, 3, 3),
    ),
    "replicate": lambda: _flat(
        nn.ReplicationPad2d(1), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.ReflectionPad2d(1), nn.Conv2d(3, 3, 3), nn.Dropout2d()
    ),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Sequential(nn.ReLU())), _flat_of(3, 4)),
    "normalised": lambda: Normalised(_flat(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True))),
    "residual": Residual,
    "functional": Functional,
}


def _flat_of(channels: int, side: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, CLASSES))


def make_net(name: str, seed: int = 0) -> nn.Module:
    """The network called `name`, in float64 and eval mode, with batch norms that have seen something."""
    with rng.borrowed_global_stream(seed, "net", name):
        net = NETS[name]()
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.3, 2)
                if module.affine:
                    module.weight.data.normal_()
                    module.bias.data.normal_()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(2)  # answers far enough apart to be attacked
    return net.double().eval()


@pytest.fixture(params=list(NETS))
def name(request: pytest.FixtureRequest) -> str:
    """Each network's name in turn."""
    return str(request.param)


@pytest.fixture
def net(name: str) -> nn.Module:
    """Each network in turn."""
    return make_net(name)


@pytest.fixture(scope="session")
def nets() -> Callable[..., nn.Module]:
    return make_net


def images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random images, a quarter of the pixels at the ends of [0, 1], and random labels."""
    draws = rng.stream(seed, "images")
    x = torch.rand(count, *SIZE, generator=draws, dtype=torch.float64) * 1.3 - 0.15
    return x.clamp(0, 1), torch.randint(CLASSES, (count,), generator=draws)


@pytest.fixture(scope="session")
def draw() -> Callable[..., tuple[Tensor, Tensor]]:
    return images


# --- trained on digits -----------------------------------------------------------------------------------------------


class Trained(NamedTuple):
    """A net with ordinary training, one hardened by interval bounds at eps 0.05, and test images with their labels."""

    standard: nn.Module
    hardened: nn.Module
    x: Tensor
    y: Tensor


@pytest.fixture(scope="session")
def trained() -> Trained:
    digits: Splits = catalog.build("data", "digits").load([])
    found = []
    for objective in ({"name": "standard"}, {"name": "ibp", "eps": 0.05}):
        net = catalog.build("models", {"name": "digits-cnn", "width": 8, "hidden": 32}).initialised(
            (1, 8, 8), 10, seed=0
        )
        settings = Training(
            objective=catalog.build("train", objective), epochs=8, batch_size=32, lr=5e-3, schedule="one-cycle"
        )
        train(net, digits.train, settings, seed=0)
        found.append(net.eval())
    index = torch.arange(100)
    return Trained(*found, digits.test.batch(index), digits.test.labels[index])
