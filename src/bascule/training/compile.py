"""Compiled passes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bascule.core.errors import RequestError

_VARIANTS = 64
"""Versions of one piece of code (modes, frozen or not, with and without gradients, each block of a network); a training
needs a few. Beyond it something changes from step to step, and compiling would never end."""


@contextmanager
def compile_model(model: nn.Module, *, backend: str = "inductor", mode: str = "default") -> Iterator[nn.Module]:
    """`model` with forward and backward passes compiled by `torch.compile`, around the same parameters.

    `model` itself stays as it is. Going from an attack (eval mode, parameters frozen) to the step and back picks
    another version of the code and compiles nothing anew. Dropout draws what it draws uncompiled. Results differ by
    rounding.

    Args:
        model: Its batches must keep one size.
        backend: Of `torch.compile`.
        mode: Of `torch.compile`; `reduce-overhead` captures CUDA graphs, which nobody has tried here yet.

    Raises:
        torch._dynamo.exc.FailOnRecompileLimitHit: On a call, when the model needs ever new versions.
    """
    import torch._dynamo.config  # takes seconds; only for those who compile
    import torch._inductor.config

    # The names of torch 2.6, which later versions know as well.
    limits = torch._dynamo.config.patch(cache_size_limit=_VARIANTS, fail_on_cache_limit_hit=True)
    try:
        with limits, torch._inductor.config.patch(fallback_random=True), warnings.catch_warnings():
            # The compiler looks at it in whatever it is given, and it is given copies (`core.lending`).
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            quick = torch.compile(model, dynamic=False, backend=backend, mode=mode)
            assert isinstance(quick, nn.Module)
            yield quick
    finally:
        torch.compiler.reset()  # the versions of one network are no use to the next one


def check_compiles(device: torch.device) -> None:
    """Compile something small on `device`.

    Raises:
        RequestError: Nothing can be compiled here; says why.
    """
    model = nn.ReLU()
    try:
        with compile_model(model) as quick:
            quick(torch.ones(2, device=device))
    except Exception as error:  # whatever is missing: a C++ compiler, Triton, a Python it supports
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RequestError(
            f"torch.compile does not work on {device.type} here: {reason}. It needs a C++ compiler (g++), "
            "and Triton on CUDA. Leave `compile_passes` out.",
            place=("compile_passes",),
        ) from error
