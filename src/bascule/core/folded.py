"""Batch norms in eval mode, folded into the convolutions before them.

A norm by running statistics multiplies and shifts each channel, and so can the convolution before it: one pass over its
answers less in either direction. The answers are the same up to rounding, so this is for passes that are rounded
anyway. Which norm stands behind which convolution is seen in a pass, never read off names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bascule.core.lean import computes_as_ever, is_compiled

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class OtherWayError(Exception):
    """A pass in which the answer of a convolution did not go where it went before."""


class FoldedNorms:
    """Convolutions of a frozen model in eval mode, each with the batch norm that alone gets its answer.

    Args:
        model: From [0, 1] images to logits.
        x: Images that it is shown once, B x C x H x W; one is enough.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.behind: Mapping[nn.Module, _BatchNorm] = _norms_behind(model, x)
        """The norm behind each convolution."""

    def parameters(self, convolution: nn.Module) -> dict[str, Tensor]:
        """Weight and bias with which a convolution answers what the norm behind it would."""
        norm, own = self.behind[convolution], convolution._parameters
        weight, bias, mean, variance = own["weight"], own["bias"], norm.running_mean, norm.running_var
        assert weight is not None
        assert mean is not None
        assert variance is not None
        scale = (variance + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        shift = (-mean if bias is None else bias - mean) * scale
        shift = shift if norm.bias is None else shift + norm.bias
        return {"weight": weight * scale.view(-1, *[1] * (weight.dim() - 1)), "bias": shift}

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Inside the block, around one pass, the norms hand on what they get.

        Raises:
            OtherWayError: That is not the answer of their convolutions; the pass is worth nothing.
        """
        waiting: dict[nn.Module, Tensor] = {}
        before = {part: vars(part).get("forward") for pair in self.behind.items() for part in pair}
        try:
            for convolution, norm in self.behind.items():
                vars(convolution)["forward"] = _remembering(convolution.forward, norm, waiting)
                vars(norm)["forward"] = _handing_on(norm, waiting)
            yield
            if waiting:
                raise OtherWayError
        finally:
            for part, forward in before.items():
                del vars(part)["forward"]
                if forward is not None:
                    vars(part)["forward"] = forward


def _remembering(forward: Callable[..., Any], norm: nn.Module, waiting: dict[nn.Module, Tensor]) -> Callable[..., Any]:
    def answer(input: Tensor) -> Any:  # noqa: A002 (called like the one it stands in for)
        waiting[norm] = forward(input)
        return waiting[norm]

    return answer


def _handing_on(norm: nn.Module, waiting: dict[nn.Module, Tensor]) -> Callable[..., Any]:
    def answer(input: Tensor) -> Tensor:  # noqa: A002 (called like the one it stands in for)
        if waiting.pop(norm, None) is not input:
            raise OtherWayError
        return input

    return answer


# --- which stands behind which ---------------------------------------------------------------------------------------


def _norms_behind(model: nn.Module, x: Tensor) -> dict[nn.Module, _BatchNorm]:
    modules = list(model.modules())
    convolutions = [part for part in modules if type(part) in _CONVOLUTIONS and _is_plain(part)]
    norms = [part for part in modules if isinstance(part, _BatchNorm) and _is_fixed(part) and _is_plain(part)]
    if not convolutions or not norms or any(map(is_compiled, modules)):
        return {}
    seen = _Seen()
    handles = [part.register_forward_hook(seen.note) for part in (*convolutions, *norms)]
    try:
        with torch.no_grad(), seen:
            model(x.detach())
    except torch.OutOfMemoryError:
        raise
    except Exception:  # somebody's code may raise anything; the search's own pass says it
        return {}
    finally:
        for handle in handles:
            handle.remove()
    made = {id(seen.answers[part]): part for part in convolutions if seen.calls[part] == 1}
    pairs = {made[source]: norm for norm in norms if (source := id(seen.inputs.get(norm))) in made}
    return {
        convolution: norm
        for convolution, norm in pairs.items()
        if seen.calls[norm] == seen.uses[id(seen.answers[convolution])] == seen.uses[id(convolution.weight)] == 1
        and seen.answers[convolution].shape[1] == norm.num_features
    }


def _is_plain(part: nn.Module) -> bool:
    """Whether a layer computes what its class says, from parameters of its own in float32, and nobody listens."""
    hooks = part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks
    return (
        computes_as_ever(part)
        and not any(hooks)
        and part._parameters.keys() == {"weight", "bias"}
        and all(own is None or own.dtype == torch.float32 for own in part._parameters.values())
    )


def _is_fixed(norm: nn.Module) -> bool:
    """Whether a norm is one of torch's own and goes by running statistics."""
    return type(norm) in _NORMS and not norm.training and norm.running_mean is not None and norm.running_var is not None


class _Seen(TorchDispatchMode):
    """What happens in a pass: how often a tensor is used, and what layers get and answer."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses: Counter[int] = Counter()
        """By id of a tensor."""
        self.calls: Counter[nn.Module] = Counter()
        self.inputs: dict[nn.Module, Tensor] = {}
        self.answers: dict[nn.Module, Tensor] = {}
        self._kept: list[Any] = []  # so that no two tensors have one id

    def note(self, part: nn.Module, args: tuple[Any, ...], answer: Tensor) -> None:
        self.calls[part] += 1
        self.inputs[part], self.answers[part] = args[0], answer

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.uses.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        answer = func(*args, **kwargs or {})
        self._kept.append((args, kwargs, answer))
        return answer
