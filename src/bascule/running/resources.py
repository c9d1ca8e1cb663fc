"""What one cell is given on a cluster, and how many the nodes have room for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bascule.core.errors import RequestError
from bascule.core.text import quote

DEVICES = ("auto", "cpu", "cuda")
"""The kinds of device that can be asked for on a cluster."""
_UNITS = {"MiB": 2**20, "GiB": 2**30}
_FORM = "expected such as cpu=2, gpu=0.2, memory=4GiB or a resource that the cluster's nodes were started with"
_SHOWN = 8
"""Nodes that a message names."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a cell is given. By default a core, and a GPU where there are some."""

    device: str = "auto"
    """auto (CUDA where the cluster has GPUs), cpu or cuda."""
    cpu: float = 1.0
    """Cores; as many threads, at least one."""
    gpu: float | None = None
    """GPUs, or part of one."""
    memory: int = 0
    """Bytes set aside on its node."""
    more: Mapping[str, float] = field(default_factory=dict)
    """Of other resources, by the names that the cluster's nodes were started with."""

    @property
    def threads(self) -> int:
        """Of torch, in each worker."""
        return max(1, int(self.cpu))

    def on(self, nodes: Iterable[Mapping[str, float]]) -> Resources:
        """The same with its device settled, on a cluster whose nodes have these resources."""
        if self.device == "auto" and self.gpu is None:
            gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
            return replace(self, device="cuda" if gpus else "cpu", gpu=1.0 if gpus else 0.0)
        if self.device == "auto":
            return replace(self, device="cuda")
        return self if self.gpu is not None else replace(self, gpu=1.0 if self.device == "cuda" else 0.0)

    def named(self) -> dict[str, float]:
        """By the names that Ray gives them."""
        own = {"CPU": self.cpu, "GPU": self.gpu or 0.0, "memory": float(self.memory)}
        return {name: amount for name, amount in {**own, **self.more}.items() if amount}

    def places(self, node: Mapping[str, float]) -> int:
        """Cells that a node with these resources has room for at the same time."""
        return min(_times(name, node.get(name, 0.0), amount) for name, amount in self.named().items())

    def check(self, nodes: Mapping[str, Mapping[str, float]]) -> None:
        """See that a cell can be done somewhere.

        Args:
            nodes: Resources of the nodes, by name.

        Raises:
            RequestError: On none of them.
        """
        if any(self.places(node) for node in nodes.values()):
            return
        wanted = ", ".join(f"{_word(name)}={_amount(name, amount)}" for name, amount in self.named().items())
        there = "; ".join(f"{name}: {_listed(node)}" for name, node in list(nodes.items())[:_SHOWN])
        more = f"; and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
        raise RequestError(
            f"no node of the cluster has {wanted}, and so no cell could ever start. There are: {there or 'none'}{more}",
            place=("resources",),
        )


def resources_of(given: Mapping[str, Any] | None, device: str) -> Resources:
    """What was asked for each cell: amounts by name, which may be texts.

    Raises:
        RequestError: No amounts, or they do not fit the device.
    """
    if device not in DEVICES:
        problem = "with `engine` ray each cell takes the GPU that Ray gives it: auto, cpu or cuda"
        raise RequestError(f"{problem}; got {quote(device)}", place=("device",))
    if given is None:
        return Resources(device=device)
    if not isinstance(given, Mapping):
        raise RequestError(f"{_FORM}; got {quote(given)}", place=("resources",))
    amounts: dict[str, Any] = {}
    for name, value in given.items():
        key = name.lower() if isinstance(name, str) and name.lower() in ("cpu", "gpu", "memory") else name
        if not isinstance(key, str) or not key.strip() or key in amounts:
            raise RequestError(f"{_FORM}, each once; got {quote(name)}", place=("resources",))
        amounts[key] = _memory(value) if key == "memory" else _number(key, value)
    asked = Resources(
        device=device,
        **{name: amounts.pop(name) for name in ("cpu", "gpu", "memory") if name in amounts},
        more=amounts,
    )
    if device == "cpu" and asked.gpu:
        raise RequestError("a GPU is of no use with `device` cpu; leave out one of the two", place=("resources",))
    return asked


def _number(name: str, value: Any) -> float:
    try:
        amount = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        amount = math.nan
    # Ray counts in ten-thousandths, and gives several GPUs whole.
    if not 1e-4 <= amount < math.inf or (name == "gpu" and amount > 1 and amount % 1):
        whole = ", of `gpu` a part of one or a whole number" if name == "gpu" else ""
        raise RequestError(f"{name} must be a number from 0.0001{whole}; got {quote(value)}", place=("resources",))
    return amount


def _memory(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(MiB|GiB)", value) if isinstance(value, str) else None
    if match is None or float(match[1]) <= 0:
        problem = "memory must be written with its unit, such as 512MiB or 4GiB (or, in Python, as bytes)"
        raise RequestError(f"{problem}; got {quote(value)}", place=("resources",))
    return int(float(match[1]) * _UNITS[match[2]])


def _times(name: str, there: float, amount: float) -> int:
    """How often an amount is there; parts of a GPU are all of the same one."""
    if name == "GPU" and amount < 1:
        return int(there) * int(1 / amount + 1e-9)
    return int(there / amount + 1e-9)


def _word(name: str) -> str:
    return name.lower() if name in ("CPU", "GPU") else name


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.3g}GiB" if name == "memory" else f"{amount:g}"


def _listed(node: Mapping[str, float]) -> str:
    own = {name: amount for name, amount in node.items() if not name.startswith(("node:", "object_store_memory"))}
    return ", ".join(f"{_word(name)}={_amount(name, amount)}" for name, amount in sorted(own.items()))
