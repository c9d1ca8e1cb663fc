"""The denoising block of the study: attention over the positions of a feature map."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenoisingBlock(nn.Module):
    """x + BN(conv1x1(A x)), A = softmax(theta(x)^T phi(x) / sqrt(C / 2)) over positions; no ReLU afterwards.

    Source: Xie et al. 2019 (Feature Denoising for Improving Adversarial Robustness), section 4: embedded Gaussian with
    softmax, in the form of Weng, Lee & Wu 2020. Unlike in Xie et al. the residual branch does not start at zero. The
    1 x 1 convolutions theta and phi halve the channels, start at N(0, 0.01^2) and, like `conv` (Glorot), have biases,
    which start at 0.

    Departure: PyTorch's batch norm keeps the unbiased variance for evaluation, TensorFlow's the biased one (only the
    unfused kind); they differ by a factor of n / (n - 1) for n = images x positions.
    """

    def __init__(
        self, channels: int, *, momentum: float = 0.001, eps: float = 1e-3, gain: bool = False, decay: bool = True
    ) -> None:
        """Take B x `channels` x H x W maps, `channels` even.

        Args:
            channels: C.
            momentum: Of the batch norm, in PyTorch's sense (1 - TensorFlow's decay).
            eps: Of the batch norm.
            gain: Whether the batch norm has a gain, starting at 1, beside its shift: on ImageNet only.
            decay: Whether weight decay reaches the convolutions: on ImageNet, but not on CIFAR-10.
        """
        super().__init__()
        self.without_weight_decay = not decay  # read by the optimiser's maker
        assert channels % 2 == 0
        self.theta = nn.Conv2d(channels, channels // 2, 1)
        self.phi = nn.Conv2d(channels, channels // 2, 1)
        self.conv = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels, eps=eps, momentum=momentum, affine=gain)
        # Not the norm's own bias: without a gain, torch's second derivative of batch norm leaves the bias out.
        self.shift = None if gain else nn.Parameter(torch.zeros(channels))
        for layer, draw in ((self.theta, _normal), (self.phi, _normal), (self.conv, nn.init.xavier_uniform_)):
            draw(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to the same shape."""
        mixed = attention(_rows(self.theta(x)), _rows(self.phi(x)), _rows(x))
        denoised = self.norm(self.conv(mixed.mT.reshape(x.shape)))
        return x + (denoised if self.shift is None else denoised + self.shift.reshape(-1, 1, 1))


def _normal(weight: Tensor) -> None:
    nn.init.normal_(weight, std=0.01)


def _rows(x: Tensor) -> Tensor:
    """B x C x H x W to B x HW x C: one row for each position."""
    return x.flatten(2).mT


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(d)) value, without keeping the N x N weights where the backend can avoid it.

    Args:
        query: B x N x d.
        key: B x N x d.
        value: B x N x C with C >= d; the floating type of `query` is used for all.
    """
    # Fused backends want one width for all three: columns of zeros change no product.
    missing = value.shape[-1] - query.shape[-1]
    scale = query.shape[-1] ** -0.5
    padded = (F.pad(part, (0, missing)) for part in (query, key))
    return _Attention.apply(*padded, value.to(query.dtype), scale)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    """Fused attention that can be differentiated twice.

    The fused backends have no second derivative, and going forward nobody knows whether one will be wanted. So only the
    inputs are kept; the backward pass runs the fused kernels again or, when it is itself to be differentiated
    (`create_graph=True`), writes the derivative out with the N x N weights.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.scale = scale
        return _fused(query, key, value, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        query, key, value = ctx.saved_tensors
        if not torch.is_grad_enabled():
            with torch.enable_grad():
                copies = [part.detach().requires_grad_() for part in (query, key, value)]
                output = _fused(copies[0], copies[1], copies[2], ctx.scale)
            return *torch.autograd.grad(output, copies, gradient), None
        weights = (query @ key.mT * ctx.scale).softmax(-1)
        to_weights = gradient @ value.mT
        to_products = weights * (to_weights - (to_weights * weights).sum(-1, keepdim=True)) * ctx.scale
        return to_products @ key, to_products.mT @ query, weights.mT @ gradient, None


def _fused(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    heads = F.scaled_dot_product_attention(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1), scale=scale)
    return heads.squeeze(1)
