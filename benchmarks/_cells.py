"""Trained models of a run folder, with test images that they get right."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from _runs import trained_digits
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.errors import RequestError


@dataclass(frozen=True)
class Trained:
    """A trained cell; the network is in eval mode and channels-last, the images are those it classifies correctly."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    images: int
    """Test images looked at, right or wrong."""

    def at(self, part: slice) -> Trained:
        return Trained(self.name, self.model, self.x[part], self.y[part], self.images)


def add_options(parser: argparse.ArgumentParser, *, images: int) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        help="run folders, as made by `bascule run`; without any the digits are trained, ordinary and hardened",
    )
    parser.add_argument("--epochs", type=int, default=25, help="of the digits (default 25)")
    parser.add_argument("--cells", nargs="*", default=[], help="only cells whose fingerprint begins so")
    parser.add_argument("--images", type=int, default=images, help=f"first test images (default {images})")


def cells(options: argparse.Namespace) -> Iterator[Trained]:
    """The trained cells that the options of `add_options` ask for, in the order of their folders' names."""
    found = 0
    for run in options.runs or [trained_digits(options.epochs).path]:
        for folder in sorted((run / "cells").iterdir()):
            wanted = not options.cells or any(folder.name.startswith(name) for name in options.cells)
            if wanted and (folder / "model.safetensors").is_file():
                found += 1
                yield _load(folder, options.images)
    if not found:
        raise SystemExit("no trained cell there")


def _load(folder: Path, count: int) -> Trained:
    info = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    settings = info["settings"]
    roots = [Path(place) for place in [os.environ.get("BASCULE_DATA")] if place]
    try:
        test = catalog.build("data", settings["data"]).load(roots).test
    except RequestError as error:
        raise SystemExit(f"{folder}: {error}") from None
    model = catalog.build("models", settings["model"]).initialised(test.size, len(test.classes), seed=0)
    safetensors.torch.load_model(model, folder / "model.safetensors")
    model.eval().to(memory_format=torch.channels_last)
    index = torch.arange(min(count, len(test)))
    x, y = test.batch(index), test.labels[index]
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in x.split(500)]) == y
    name = f"{settings['data']['name']} {settings['model']['name']} {_objective(settings)} {folder.name[:6]}"
    return Trained(name, model, x[right], y[right], len(index))


def _objective(settings: dict[str, Any]) -> str:
    objective = settings["train"]["objective"]
    inner = objective.get("inner", {}).get("name")
    return objective["name"] + (f"({inner})" if inner else "")


def standing(trained: Trained, found: Tensor, eps: float, name: str, *, norm: str = "linf") -> Tensor:
    """bool per image: still classified correctly. Nobody may leave the ball."""
    length = (found - trained.x).flatten(1).norm(p={"linf": torch.inf, "l2": 2, "l1": 1}[norm], dim=1)
    if length.max() > eps + 1e-4 or found.min() < -1e-6 or found.max() > 1 + 1e-6:
        raise SystemExit(f"{name} left the ball: {length.max():.5f} > {eps}")
    with torch.no_grad():
        return trained.model(found).argmax(1) == trained.y
