"""Random streams named by (seed, purpose), so that adding one evaluation never shifts another one's draws."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for the stream named `purpose`, the same on every machine."""
    text = "\x1f".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for the stream named `purpose`, living on `device` like the tensors it will fill."""
    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))


def draw_seed(generator: torch.Generator) -> int:
    """A seed for the training loop, whose draws come from named streams."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def seed_global(number: int, device: torch.device) -> None:
    """Seed what torch draws from by itself on the CPU and on `device`; inside `borrowed_global_stream`.

    The same streams as after `torch.manual_seed`, which seeds every device there is, and where CUDA was not used yet
    writes the call down with its whole stack: 170 microseconds, a twentieth of a small network's step.
    """
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(number)


@contextmanager
def borrowed_global_stream(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's global generators inside the block and put them back as they were.

    Layer initialisation and dropout inside `torch.nn` cannot be given a generator; this is the only place that touches
    the global ones on their behalf.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, *purpose))
        yield
