"""Networks that misbehave, or are built otherwise than a plain CNN: `file.py:name` for the command line, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Size = tuple[int, int, int]


class Around(nn.Module):
    """A small CNN with something done before and behind it."""

    def __init__(
        self, size: Size, classes: int, before: Callable[[Tensor], Tensor], behind: Callable[..., Any] | None = None
    ) -> None:
        super().__init__()
        channels, height, width = size
        self.body = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * height * width, classes)
        )
        self.before, self.behind = before, behind

    def forward(self, x: Tensor) -> Any:
        logits = self.body(self.before(x))
        return logits if self.behind is None else self.behind(self, logits)


def plain(size: Size, classes: int) -> nn.Module:
    return Around(size, classes, lambda x: (x - 0.5) / 0.25)


def in_place(size: Size, classes: int) -> nn.Module:
    return Around(size, classes, lambda x: x.sub_(0.5).div_(0.25))


def in_place_operators(size: Size, classes: int) -> nn.Module:
    def before(x: Tensor) -> Tensor:
        x -= 0.5
        x /= 0.25
        return x

    return Around(size, classes, before)


def in_place_view(size: Size, classes: int) -> nn.Module:
    def before(x: Tensor) -> Tensor:
        x.flatten(1)[:, ::2].zero_()
        return x

    return Around(size, classes, before)


def detached(size: Size, classes: int) -> nn.Module:
    return Around(size, classes, lambda x: (x.detach() * 255).round() / 255)


def rounded(size: Size, classes: int) -> nn.Module:
    return Around(size, classes, lambda x: (x * 15).round() / 15)


def outside(size: Size, classes: int) -> nn.Module:
    return Around(size, classes, lambda x: torch.from_numpy(x.numpy() * 1.0))


class Inference(Around):
    """Answers with tensors that autograd refuses to keep."""

    def forward(self, x: Tensor) -> Any:
        with torch.inference_mode():
            return super().forward(x)


def inference(size: Size, classes: int) -> nn.Module:
    return Inference(size, classes, lambda x: (x - 0.5) / 0.25)


def sigmoid(size: Size, classes: int) -> nn.Module:
    return Around(size, classes, lambda x: x, lambda net, logits: logits.sigmoid())


def log_softmax(size: Size, classes: int) -> nn.Module:
    return Around(size, classes, lambda x: x, lambda net, logits: logits.log_softmax(1))


def auxiliary(size: Size, classes: int) -> nn.Module:
    return Around(size, classes, lambda x: x, lambda net, logits: (logits, logits) if net.training else logits)


def wider_in_training(size: Size, classes: int) -> nn.Module:
    def behind(net: nn.Module, logits: Tensor) -> Tensor:
        return torch.cat([logits, logits], 1) if net.training else logits

    return Around(size, classes, lambda x: x, behind)


class Attention(nn.Module):
    """Tokens: patches, one head of attention in plain torch, the mean."""

    def __init__(self, size: Size, classes: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(size[0], 16, 2, 2)
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        q, k, v = (part.unsqueeze(1) for part in self.qkv(tokens).chunk(3, dim=2))
        tokens = tokens + self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1))
        logits: Tensor = self.head(tokens.mean(1))
        return logits


class Encoder(nn.Module):
    """Tokens: torch's own encoder layer."""

    def __init__(self, size: Size, classes: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(size[0], 16, 2, 2)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.block(self.patch(x).flatten(2).transpose(1, 2)).mean(1))
        return logits


class Windows(nn.Module):
    """Maps with channels last, attention inside windows of 2 x 2 of them: layers that see rows of no one image."""

    def __init__(self, size: Size, classes: int) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(size[0], 16, 2, 2), nn.LayerNorm(16)
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.norm(self.patch(x).permute(0, 2, 3, 1))
        batch, height, width, channels = maps.shape
        cut = maps.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(2, 3)
        windows = cut.reshape(-1, 4, channels)
        q, k, v = (part.unsqueeze(1) for part in self.qkv(windows).chunk(3, dim=2))
        seen = self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1)).reshape(cut.shape).transpose(2, 3)
        logits: Tensor = self.head((maps + seen.reshape(maps.shape)).mean((1, 2)))
        return logits


class Back(Windows):
    """The same, with the channels brought to the front before pooling."""

    def __init__(self, size: Size, classes: int) -> None:
        super().__init__(size, classes)
        self.front = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.qkv(self.norm(self.patch(x).permute(0, 2, 3, 1)))[..., :16]
        logits: Tensor = self.head(self.front(maps.permute(0, 3, 1, 2)).mean((2, 3)))
        return logits


class Shrunk(nn.Module):
    """A linear layer on maps with channels last, of which one pixel is left, as in ConvNeXt on small images."""

    def __init__(self, size: Size, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(size[0], 8, 2, 2), nn.Conv2d(8, 8, (size[1] // 2, size[2] // 2))
        self.norm, self.mlp, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.mlp(self.norm(self.second(self.first(x).relu()).permute(0, 2, 3, 1)))
        logits: Tensor = self.head(maps.mean((1, 2)))
        return logits


class HeadConvolution(nn.Module):
    """A last convolution behind the pooling, as in MobileNetV3."""

    def __init__(self, size: Size, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(size[0], 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, padding=1)
        self.conv_head, self.classifier = nn.Conv2d(8, 16, 1), nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.second(self.first(x).relu()).relu().mean((2, 3), keepdim=True)
        logits: Tensor = self.classifier(self.conv_head(pooled).relu().flatten(1))
        return logits


class Token(Encoder):
    """A parameter that the network itself holds, as class tokens are."""

    def __init__(self, size: Size, classes: int) -> None:
        super().__init__(size, classes)
        self.token = nn.Parameter(torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.patch(x).flatten(2).mean(2) + self.token)
        return logits


class HeadOnTokens(Encoder):
    """The last linear layer answers for every token; the mean comes behind it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.patch(x).flatten(2).transpose(1, 2))).mean(1)


def linear(size: Size, classes: int) -> nn.Module:
    channels, height, width = size
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))


class Square(torch.autograd.Function):
    """An operation with a first derivative only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradients[0]


def once(size: Size, classes: int) -> nn.Module:
    return Around(size, classes, lambda x: x, lambda net, logits: Square.apply(logits))
