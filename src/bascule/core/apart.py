"""Work that is done for somebody in Python: the same whatever torch was told around it, and without a trace there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn

from bascule.core.rng import borrowed_global_stream

_lock = threading.Lock()
_inside: list[ExitStack] = []
"""Who keeps what is global in torch, and once more for each that is at work: threads share them."""
_turns: dict[int, _Turn] = {}
"""Of the models that somebody works with or waits for, by `id`."""


@contextmanager
def apart(seed: int = 0, *models: nn.Module) -> Iterator[None]:
    """Inside, what the caller has set in torch does not count, and nobody else works with these models.

    Neither `no_grad`, `inference_mode` and `autocast` count, nor another default type of floats or default device. That
    type and torch's own stream are put back afterwards.

    Under `inference_mode` no gradient can be taken, so that an attack would find nothing and a model look robust. Two
    threads that put modes, frozen parameters and hooks of one model back would leave it as neither had found it: the
    second waits.

    Args:
        seed: Of what a model draws from torch's global generators.
        models: What is lent.
    """
    cpu, cuda = (torch.autocast(kind, enabled=False) for kind in ("cpu", "cuda"))
    # A mode that is called for every function of torch, and so only where there is one already.
    device = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    grad = torch.inference_mode(mode=False), torch.enable_grad()
    with _alone_with(models), grad[0], grad[1], cpu, cuda, device, _globals_kept(seed):
        yield


@dataclass
class _Turn:
    """Who works with a model, and how many there are with those who wait."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    there: int = 0

    def leave(self, key: int) -> None:
        with _lock:
            self.there -= 1
            if not self.there:
                del _turns[key]


@contextmanager
def _alone_with(models: tuple[nn.Module, ...]) -> Iterator[None]:
    """Nobody else is in such a block with one of these models; all wait in one order, so that nobody waits for ever."""
    with ExitStack() as stack:
        for key in sorted(set(map(id, models))):
            with _lock:
                turn = _turns.setdefault(key, _Turn())
                turn.there += 1
            stack.callback(turn.leave, key)
            stack.enter_context(turn.lock)
        yield


@contextmanager
def _globals_kept(seed: int) -> Iterator[None]:
    """The first that comes takes what is global in torch, and the last that goes gives it back as it was."""
    with _lock:
        keeper = _inside[0] if _inside else ExitStack()
        if not _inside:
            keeper.enter_context(borrowed_global_stream(seed, "verb"))
            keeper.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        _inside.append(keeper)
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            if not _inside:
                keeper.close()
