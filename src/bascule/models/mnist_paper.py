"""The MNIST network of the study."""

from __future__ import annotations

from torch import nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.models.contract import Architecture
from bascule.models.denoise import DenoisingBlock


@component
class MnistPaper(Architecture):
    """Two 5 x 5 convolutions (32 and 64 channels), each with ReLU and 2 x 2 max-pooling, then 1024 hidden units.

    Source: Weng, Lee & Wu, NeurIPS 2020, released MNIST code (the network of Madry et al. 2018). Weights AND biases are
    drawn Glorot-uniform as there; for a bias of n entries that is U(-sqrt(3/n), sqrt(3/n)), since TensorFlow counts a
    vector's length as both fan-in and fan-out. With `denoise` all biases start at 0, as in the released code of that
    variant.
    """

    denoise: bool = False
    """A denoising block (Xie et al. 2019) after each max-pooling. Its batch norm's momentum of 0.001 wants long
    trainings; the study evaluated one of its two models with batch statistics, here evaluation is in eval mode."""

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        channels, height, width = size
        if height < 4 or width < 4:
            raise RequestError(f"mnist-paper needs images of at least 4 x 4, got {height} x {width}")
        model = nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            *([DenoisingBlock(32)] if self.denoise else []),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            *([DenoisingBlock(64)] if self.denoise else []),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 1024),
            nn.ReLU(),
            nn.Linear(1024, classes),
        )
        for layer in model:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                bound = 0.0 if self.denoise else (3 / len(layer.bias)) ** 0.5
                nn.init.uniform_(layer.bias, -bound, bound)
        return model
