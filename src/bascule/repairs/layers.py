"""The layers of a network in the order they run, and what comes out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.restore import evaluating

_Norm = nn.modules.batchnorm._BatchNorm


class Layer(NamedTuple):
    """A convolution or linear layer, with the batch norm that takes its output directly, if there is one.

    Its channels are the rows of the weight: feature maps of a convolution, units of a linear layer.
    """

    name: str
    module: nn.Conv2d | nn.Linear
    norm: _Norm | None = None
    norm_name: str = ""

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.module.weight)

    @property
    def output(self) -> nn.Module:
        """The module whose output is the layer's: the batch norm where there is one."""
        return self.norm or self.module

    @property
    def scale(self) -> tuple[str, nn.Conv2d | nn.Linear | _Norm]:
        """Name and module of what scales the channels last: the batch norm, if it has a gain, or the layer itself."""
        if self.norm is not None and self.norm.affine:
            return self.norm_name, self.norm
        return self.name, self.module

    @torch.no_grad()
    def silence(self, channels: Tensor) -> None:
        """Make the output of these channels (bool, one per channel) zero for every image, by zeros in weights."""
        _, module = self.scale
        module.weight[channels] = 0
        if module.bias is not None:
            # A norm without gain still subtracts its mean afterwards.
            shift = self.norm.running_mean if self.norm is not None and module is self.module else None
            module.bias[channels] = 0 if shift is None else shift[channels]


def layers_of(model: nn.Module, size: tuple[int, int, int]) -> list[Layer]:
    """Convolutions (2-d) and linear layers in the order in which they first run, the one that gives the logits last.

    Found by a pass over one black image of this size, in eval mode; the model is left as it is.
    """
    names = {module: name for name, module in model.named_modules()}
    outputs: dict[nn.Module, Tensor] = {}
    norms: dict[nn.Module, nn.Module] = {}

    def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        outputs[module] = output

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        norms.update({layer: module for layer, output in outputs.items() if output is args[0]})

    with ExitStack() as stack:
        for module in names:
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                stack.enter_context(_removed(module.register_forward_hook(after)))
            elif isinstance(module, _Norm):
                stack.enter_context(_removed(module.register_forward_pre_hook(before)))
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.no_grad())
        like = next(p for p in model.parameters() if p.is_floating_point())
        model(like.new_zeros(1, *size))
    layers = []
    for module in outputs:
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        norm = norms.get(module)
        if norm is None:
            layers.append(Layer(names[module], module))
        else:
            assert isinstance(norm, _Norm)
            layers.append(Layer(names[module], module, norm, names[norm]))
    return layers


def hidden_layers_of(model: nn.Module, size: tuple[int, int, int]) -> list[Layer]:
    """All layers but the one that gives the logits.

    Raises:
        RequestError: There is none.
    """
    layers = layers_of(model, size)[:-1]
    if not layers:
        raise RequestError(
            "the model has no hidden convolution or linear layer, so there is no channel to prune; "
            "use a repair that trains, for example fine-tune"
        )
    return layers


def scaled(layers: Sequence[Layer], scales: Sequence[Tensor], shifts: Sequence[Tensor] = ()) -> dict[str, Tensor]:
    """What scales the channels of each layer, by name: weights, each channel's times its scale; and with `shifts` the
    biases, times its shift. Both have one tensor a layer, shape (channels,)."""
    weights = {}
    for place, (layer, scale) in enumerate(zip(layers, scales, strict=True)):
        name, module = layer.scale
        weights[f"{name}.weight"] = module.weight * scale.reshape(-1, *[1] * (module.weight.ndim - 1))
        if shifts and module.bias is not None:
            weights[f"{name}.bias"] = module.bias * shifts[place]
    return weights


@contextmanager
def capture(modules: Sequence[nn.Module], *, inputs: bool = False) -> Iterator[list[Tensor]]:
    """A list that holds these modules' outputs, or inputs, of the last pass inside the block; no hook stays behind."""
    values = [torch.empty(0) for _ in modules]

    def keeper(place: int) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            values[place] = args[0] if inputs else output

        return keep

    with ExitStack() as stack:
        for place, module in enumerate(modules):
            stack.enter_context(_removed(module.register_forward_hook(keeper(place))))
        yield values


@contextmanager
def _removed(handle: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
