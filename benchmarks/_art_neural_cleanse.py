"""Neural Cleanse by the Adversarial Robustness Toolbox, on the same network rebuilt with Keras."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from _plain_neural_cleanse import Found
from torch import Tensor, nn


def rebuilt(model: nn.Sequential, size: tuple[int, int, int]) -> object:
    """A Keras model with the weights of a chain of convolutions, ReLUs and linear layers; checked on random images."""
    import keras

    channels, height, width = size
    x = torch.rand(8, *size)
    layers: list[object] = [keras.Input((height, width, channels))]
    weights: list[list[np.ndarray]] = []
    flattened: torch.Size | None = None
    shown = x
    for module in model.cpu():
        before, shown = shown.shape, module(shown)
        if isinstance(module, nn.Conv2d):
            layers.append(keras.layers.ZeroPadding2D(module.padding))
            layers.append(keras.layers.Conv2D(module.out_channels, module.kernel_size, module.stride))
            weights.append([module.weight.permute(2, 3, 1, 0), module.bias])
        elif isinstance(module, nn.ReLU):
            layers.append(keras.layers.ReLU())
        elif isinstance(module, nn.Flatten):
            layers.append(keras.layers.Flatten())
            flattened = before[1:]
        elif isinstance(module, nn.Linear):
            layers.append(keras.layers.Dense(module.out_features))
            matrix = module.weight
            if flattened is not None:  # Keras flattens height x width x channels
                matrix = matrix.view(-1, *flattened).permute(0, 2, 3, 1).flatten(1)
                flattened = None
            weights.append([matrix.T, module.bias])
        else:
            raise SystemExit(f"{type(module).__name__} cannot be rebuilt with Keras")
    net = keras.Sequential(layers)
    net.set_weights([value.detach().numpy() for pair in weights for value in pair])
    theirs = net(x.permute(0, 2, 3, 1).numpy()).numpy()
    np.testing.assert_allclose(theirs, shown.detach().numpy(), rtol=1e-3, atol=1e-4)
    net.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True), optimizer="adam")
    return net


def invert_with_art(model: nn.Sequential, x: Tensor) -> tuple[list[Found], int]:
    """The smallest trigger to every class in turn, and the images sent through the model.

    ART's schedule is the authors': a look at success after each pass over the images, patience 5, success 99 %. Norm 1
    and early stopping as in its documentation; the mask is one value per pixel and channel, the same for one channel.
    """
    from art.estimators.poison_mitigation.neural_cleanse.keras import KerasNeuralCleanse

    art = KerasNeuralCleanse(
        rebuilt(model, tuple(x.shape[1:])), use_logits=True, clip_values=(0.0, 1.0), norm=1, batch_size=32
    )
    steps = 0
    train = art.train

    def counted(*batch: object) -> object:
        nonlocal steps
        steps += 1
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the success of every step
            return train(*batch)

    art.train = counted
    images = x.permute(0, 2, 3, 1).cpu().numpy()
    found = []
    for target in range(10):
        y = np.eye(10, dtype=np.float32)[target]
        mask, pattern = art.generate_backdoor(images, np.tile(y, (len(images), 1)), y)
        mask, pattern = (torch.from_numpy(np.asarray(one)).permute(2, 0, 1).float() for one in (mask, pattern))
        found.append(Found(mask.mean(0, keepdim=True), pattern, float(mask.sum()) / len(mask), True, 0))
    return found, 32 * steps
