"""Work that is done for somebody in Python: the same whatever torch was told around it, and without a trace there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from bascule.core.rng import borrowed_global_stream

_lock = threading.Lock()
_inside: list[ExitStack] = []
"""Who keeps what is global in torch, and once more for each that is at work: threads share them."""


@contextmanager
def apart(seed: int = 0) -> Iterator[None]:
    """Inside, the caller's `no_grad`, `inference_mode` and `autocast` do not count, nor another default type of floats.

    That type and torch's own stream are put back afterwards.

    Under `inference_mode` no gradient can be taken, so that an attack would find nothing and a model look robust.

    Args:
        seed: Of what a model draws from torch's global generators.
    """
    cpu, cuda = (torch.autocast(kind, enabled=False) for kind in ("cpu", "cuda"))
    with torch.inference_mode(mode=False), torch.enable_grad(), cpu, cuda, _globals_kept(seed):
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
