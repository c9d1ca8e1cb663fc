"""What a model is given and gives back: it gets a copy of the images, in the type that it computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError


@contextmanager
def lending(model: nn.Module, *, classes: int | None = None) -> Iterator[None]:
    """Inside the block every call of `model` works on a copy of the images, and must answer with one tensor.

    With `classes`, of as many logits for each image: while a network trains, others would be learnt from in silence.

    So whatever a model writes into its input reaches nobody: neither the caller's images nor a leaf that wants a
    gradient. (Looking for a change after the pass would cost as much thought and come too late for the first batch; a
    copy costs less than a percent of a pass, benchmarks/lending.py.) Where all parameters are of another floating type
    than the images, the copy is of theirs and the answer is brought back: a ball around images in 16 bits would be a
    larger one. Answers in fewer bits than the images, as mixed precision gives them, are widened.

    A block inside another one for the same model copies once. Symbolic tracing goes by unseen.

    Raises:
        RequestError: On a call, when the model answers with something else than a tensor, or with other logits.
    """
    outer = next(filter(None, map(_desk_of, model._forward_pre_hooks.values())), None)
    if outer is not None:
        before, outer.classes = outer.classes, classes or outer.classes
        try:
            yield
        finally:
            outer.classes = before
        return
    desk = _Desk(own_type(model), classes)
    # Not the module's own methods: those of scripted modules refuse hooks, which work all the same.
    handles = (
        nn.Module.register_forward_pre_hook(model, desk.hand_out, prepend=True),
        nn.Module.register_forward_hook(model, desk.take_back, prepend=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def lends(model: nn.Module) -> bool:
    """Whether `model` is inside a block of `lending`."""
    return any(map(is_ours, model._forward_pre_hooks.values()))


def is_ours(hook: Any) -> bool:
    """Whether a hook is one that `lending` sets."""
    return _desk_of(hook) is not None


def _desk_of(hook: Any) -> _Desk | None:
    owner = getattr(hook, "__self__", None)
    return owner if isinstance(owner, _Desk) else None


def stop_lending(model: nn.Module) -> None:
    """Take the hooks of `lending` off a copy that was made of a model inside a block."""
    for hooks in (model._forward_pre_hooks, model._forward_hooks):
        for key in [key for key, hook in hooks.items() if is_ours(hook)]:
            del hooks[key]


def not_logits(name: str, answer: object) -> str:
    """What to say of a model whose answer is no tensor."""
    return (
        f"{name} answers with {type(answer).__name__}; expected a tensor of logits. "
        "Wrap it in a module whose `forward` returns the logits alone"
    )


class _Desk:
    """Stands before and behind a model."""

    def __init__(self, own: torch.dtype | None, classes: int | None) -> None:
        self.own = own
        """The type of all floating parameters, if there is one."""
        self.classes = classes
        """Logits per image, where they are to be counted."""
        self.asked: torch.dtype | None = None
        """The type of the images handed out last."""

    def hand_out(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        x = args[0] if args else None
        if not isinstance(x, Tensor):
            return None
        self.asked = x.dtype
        own = x.dtype if self.own is None or not x.is_floating_point() else self.own
        return x.to(own, copy=True), *args[1:]

    def take_back(self, module: nn.Module, args: tuple[Any, ...], answer: Any) -> Tensor | None:
        if not args or not isinstance(args[0], Tensor):
            return None
        name = type(module).__name__ + (" in train mode" if module.training else "")
        if not isinstance(answer, Tensor):
            raise RequestError(not_logits(name, answer))
        wanted = len(args[0]), self.classes
        if self.classes is not None and answer.shape != wanted:
            raise RequestError(
                f"{name} answers with shape {tuple(answer.shape)} for {len(args[0])} images; expected {wanted}: one "
                "logit per class"
            )
        if answer.is_inference() and not torch.is_inference_mode_enabled():
            answer = answer.clone()  # autograd refuses to keep what was made in inference mode
        asked = self.asked
        assert asked is not None
        lent = args[0].dtype != asked
        narrow = answer.is_floating_point() and asked.is_floating_point and answer.dtype.itemsize < asked.itemsize
        return answer.to(asked) if narrow or (lent and answer.is_floating_point()) else answer


def own_type(model: nn.Module) -> torch.dtype | None:
    """The type of all floating parameters of a model; None where there are several, or none."""
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return types.pop() if len(types) == 1 else None
