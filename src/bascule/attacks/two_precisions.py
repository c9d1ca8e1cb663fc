"""A search in two precisions: gradients in bfloat16, every verdict in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from bascule.attacks.losses import margin
from bascule.core.errors import RequestError, unknown
from bascule.core.folded import FoldedNorms, OtherWayError
from bascule.core.rounded import RoundedWeights

Precision = Literal["float32", "mixed"]
"""Of an attack's search. `mixed`: gradients in bfloat16; who is fooled is decided in float32."""

_DOUBT = 2**-5
"""Share of the largest logit by which a margin may be wrong in bfloat16: eight times its rounding unit, since the
roundings of several layers add up."""


class TwoPrecisions(nn.Module):
    """A model as a search in two precisions sees it: `forward` is the model itself, `rough` a pass in bfloat16.

    A search that knows nothing of this calls the model as ever and stays in float32. In a rough pass that is rounded
    which `torch.autocast` takes for safe, and the weights of plain layers are rounded once, not in every pass; batch
    norms that only scale and shift what a convolution answers are left to that convolution. bfloat16 has the range of
    float32, so no gradient vanishes for it; but it keeps eight binary digits, of images too, so a rough pass decides
    nothing: whom it takes for fooled, or for nearly so, is asked again in float32.

    Args:
        model: From [0, 1] images to logits, frozen while this is used.

    Raises:
        RequestError: A parameter is not in float32.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        check_in_float32(model)
        self.model = model
        self._folded: FoldedNorms | None = None
        self._rounded = RoundedWeights(model)
        self._looked = False

    def forward(self, x: Tensor) -> Tensor:
        """Logits in float32, B x K."""
        logits: Tensor = self.model(x)
        return logits

    def rough(self, x: Tensor) -> Tensor:
        """Logits of a pass in bfloat16, B x K, widened to the type of `x`; differentiable by `x`."""
        if not self._looked:  # once, since the model is frozen: where its norms stand
            self._looked = True
            self._fold(FoldedNorms(self.model, x[:1]))
        if self._folded is not None:
            try:
                with self._folded.left_out():
                    return self._rough(x)
            except OtherWayError:  # what holds for one image does not for these: never again
                self._fold(None)
        return self._rough(x)

    def _rough(self, x: Tensor) -> Tensor:
        with self._rounded.lent(), torch.autocast(x.device.type, dtype=torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.to(x.dtype)

    def _fold(self, norms: FoldedNorms | None) -> None:
        self._folded = norms if norms is not None and norms.behind else None
        self._rounded = RoundedWeights(self.model, self._folded)

    @torch.no_grad()
    def fooled(self, x: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        """Which images the model itself takes for something else than `y`: bool, shape (B,).

        Args:
            x: B x C x H x W.
            logits: What a rough pass says of them, B x K.
            y: Labels, shape (B,).
        """
        certain = margin(logits, y) < -_DOUBT * logits.abs().amax(1)  # never where a logit is not a number
        fooled, index = ~certain, (~certain).nonzero().squeeze(1)
        if len(index):
            fooled[index] = self.model(x[index]).argmax(1) != y[index]
        return fooled

    def check(self, x: Tensor) -> None:
        """Try a rough pass.

        Raises:
            RequestError: The model fails in bfloat16.
        """
        try:
            self.rough(x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # somebody's code may raise anything
            raise RequestError(
                f"the model fails in bfloat16 ({type(error).__name__}: {error}); attack it with `attack_precision` "
                "float32"
            ) from error


def search_pass(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a search that follows gradients calls: the model, in two precisions a rough pass of it."""
    return model.rough if isinstance(model, TwoPrecisions) else model


def precision_named(name: str) -> Precision:
    """A precision of a search by its name.

    Raises:
        RequestError: There is none of that name.
    """
    if name not in get_args(Precision):
        raise RequestError(unknown("precision", name, get_args(Precision)))
    return cast(Precision, name)


def check_in_float32(model: nn.Module) -> None:
    """Refuse a model that two precisions are not for.

    Raises:
        RequestError: A parameter is in other precision than float32.
    """
    types = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if types:
        names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in types))
        raise RequestError(
            f"a search in two precisions is for models in float32, and this one has parameters in {names}; attack it "
            "with `attack_precision` float32"
        )
