"""AutoAttack on trained models, batch by batch: Bascule, torchattacks and the authors' own code.

All get the published budget (APGD on the cross-entropy, 100 steps; targeted APGD, 100 steps towards nine targets;
targeted FAB, the same; Square, 5000 queries), the same images in the same memory layout, and each part what the ones
before it left. They take turns batch by batch. The yardstick is Bascule.
"""

from __future__ import annotations

import argparse
import copy
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from _cells import Trained, cells
from _cells import add_options as add_cells
from _ensembles import Chain, Part, of_the_authors, ours, run_chain, theirs
from _interleaved import CLOCKS, Result, Said, Timed, add_clock, run


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_cells(made, images=1000)
    made.add_argument("--eps", type=float, default=0.3, help="radius of the Linf ball (default 0.3)")
    made.add_argument("--batch", type=int, default=250, help="images per call (default 250)")
    add_clock(made)
    return made


def measure(options: argparse.Namespace) -> Iterator[Result]:
    torch.set_num_threads(options.threads)
    for trained in cells(options):
        yield from compare(trained, options)


def compare(trained: Trained, options: argparse.Namespace) -> Iterator[Result]:
    clock, classes = CLOCKS[options.clock], int(trained.model(trained.x[:1]).shape[1])
    model = trained.model
    made: dict[str, Callable[[], dict[str, Part]]] = {  # each has a model of its own: settings reach nobody else
        "bascule": lambda: ours(copy.deepcopy(model), "linf", options.eps),
        "torchattacks": lambda: theirs(copy.deepcopy(model), "linf", options.eps, classes),
        "the authors": lambda: of_the_authors(copy.deepcopy(model), "linf", options.eps, options.batch),
    }
    sides: dict[str, dict[str, Part]] = {}
    for name, make in made.items():
        try:
            sides[name] = make()
        except ImportError as error:
            yield Said(f"{name} is skipped: {error}")
    chains: dict[str, list[Chain]] = {name: [] for name in sides}
    for first in range(0, len(trained.y), options.batch):
        part = trained.at(slice(first, first + options.batch))
        for name, parts in sides.items():
            chains[name].append(run_chain(part, parts, clock))
    totals = {name: [sum(chain.seconds.values()) for chain in runs] for name, runs in chains.items()}
    job = f"AutoAttack, {trained.name}, {len(trained.y)} of {trained.images} images right, eps {options.eps}"
    for name, runs in chains.items():
        found = {"robust accuracy": f"{100 * sum(chain.standing for chain in runs) / trained.images:.2f} %"}
        if len(sides[name]) > 1:
            found |= _by_part(runs)
        yield Timed(job=job, who=name, seconds=totals[name], base=totals["bascule"], whole=True, found=found)


def _by_part(runs: list[Chain]) -> dict[str, str]:
    """Seconds and images that fell, per attack."""
    seconds, fallen = Counter[str](), Counter[str]()
    for chain in runs:
        seconds.update(chain.seconds)
        fallen.update(chain.fallen)
    return {name: f"{seconds[name]:.1f} s, {fallen[name]} fell" for name in seconds}


if __name__ == "__main__":
    run(parser(), measure)
