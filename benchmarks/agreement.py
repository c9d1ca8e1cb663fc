"""Robust accuracy beside an independent implementation: our AutoAttack and its parts against torchattacks'.

For every trained cell: each part alone on all images the model gets right, then the whole, both sides at the published
budget. Ours must never be higher by more than half a point, and each part at least as strong as theirs.
"""

from __future__ import annotations

import argparse
import itertools

import torch
from _cells import Trained, cells, standing
from _cells import add_options as add_cells
from _ensembles import NAMES, ours, run_chain, theirs
from _interleaved import machine, print_table

from bascule.attack.autoattack import Autoattack
from bascule.attack.run import run_attack
from bascule.core.rng import stream

HEAD = ["model", "eps", "seed", "who", "clean", *NAMES, "all", "light"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_cells(parser, images=1000)
    parser.add_argument("--norm", choices=["linf", "l2"], default="linf", help="norm of the ball (default linf)")
    parser.add_argument("--eps", nargs="+", type=float, required=True, help="radii of the ball")
    parser.add_argument("--parts", nargs="*", choices=NAMES, default=list(NAMES), help="parts to run (default all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of everything drawn (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows, higher = [], []
    for trained in cells(options):
        for eps, seed in itertools.product(options.eps, options.seeds):
            found = compared(trained, eps, seed, options)
            rows += found
            higher += [
                f"{trained.name}, eps {eps}, seed {seed}, {what}: {a} against {b}"
                for what, a, b in zip(HEAD[5:-1], found[0][5:-1], found[1][5:-1], strict=True)
                if a and float(a) > float(b)
            ]
            print_table(HEAD, found)
            print(flush=True)
    print_table(HEAD, rows)
    print("\nOurs is higher:", *(higher or ["nowhere"]), sep="\n- ")
    print(f"\nRobust accuracy in per cent; {options.norm}; {machine(['torchattacks'])}")


def compared(trained: Trained, eps: float, seed: int, options: argparse.Namespace) -> list[list[str]]:
    """A row for us and a row for them."""
    classes = int(trained.model(trained.x[:1]).shape[1])
    rows = []
    for who, parts in (
        ("bascule", ours(trained.model, options.norm, eps, seed)),
        ("torchattacks", theirs(trained.model, options.norm, eps, classes, seed)),
    ):
        row = [trained.name, f"{eps:g}", f"{seed}", who, percent(len(trained.y), trained)]
        for name in NAMES:
            if name in options.parts:
                found = parts[name](trained.x, trained.y)
                left = standing(trained, found, eps, f"{who} {name}", norm=options.norm)
                row.append(percent(int(left.sum()), trained))
            else:
                row.append("")
        chain = run_chain(trained, {name: parts[name] for name in options.parts})
        rows.append([*row, percent(chain.standing, trained), ""])
    light = Autoattack(norm=options.norm, eps=eps, version="light")
    end = run_attack(trained.model, light, trained.x, trained.y, generator=stream(seed, "benchmark"))
    rows[0][-1] = percent(int((end.prediction == trained.y).sum()), trained)
    return rows


def percent(count: int, trained: Trained) -> str:
    return f"{100 * count / trained.images:.2f}"


if __name__ == "__main__":
    main()
