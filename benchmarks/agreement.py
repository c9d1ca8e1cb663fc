"""Robust accuracy beside an independent implementation: our AutoAttack and its parts against torchattacks'.

In L1, which torchattacks lacks, the other side is the code of AutoAttack's authors.

For every trained cell: each part alone on all images the model gets right, then the whole, both sides at the published
budget. Ours must never be higher by more than half a point, and each part at least as strong as theirs.

With `--two-precisions` instead: how many images withstand PGD with 20 steps that searches in float32, seed by seed, and
how many when it searches in two precisions. The latter must lie within what float32's own repeats span.
"""

from __future__ import annotations

import argparse
import itertools
import statistics

import torch
from _cells import Trained, cells, standing
from _cells import add_options as add_cells
from _ensembles import NAMES, ours, run_chain, theirs
from _interleaved import machine, print_table

from bascule.attacks.autoattack import Autoattack
from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.attacks.two_precisions import Precision
from bascule.core.rng import stream

HEAD = ["model", "eps", "seed", "who", "clean", *NAMES, "all", "light"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_cells(parser, images=1000)
    parser.add_argument("--norm", choices=["linf", "l2", "l1"], default="linf", help="norm of the ball (default linf)")
    parser.add_argument("--eps", nargs="+", type=float, required=True, help="radii of the ball")
    parser.add_argument("--parts", nargs="*", choices=NAMES, default=list(NAMES), help="parts to run (default all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of everything drawn (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--two-precisions", action="store_true", help="compare two precisions with float32 instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.two_precisions:
        compare_precisions(options)
        return
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
    print(f"\nRobust accuracy in per cent; {options.norm}; {machine([other(options)])}")


def other(options: argparse.Namespace) -> str:
    """The package on the other side."""
    return "pyautoattack" if options.norm == "l1" else "torchattacks"


def compared(trained: Trained, eps: float, seed: int, options: argparse.Namespace) -> list[list[str]]:
    """A row for us and a row for them."""
    classes = int(trained.model(trained.x[:1]).shape[1])
    rows = []
    for who, parts in (
        ("bascule", ours(trained.model, options.norm, eps, seed)),
        (other(options), theirs(trained.model, options.norm, eps, classes, seed)),
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


def compare_precisions(options: argparse.Namespace) -> None:
    """Images that withstand PGD-20 in each precision, a count per seed."""
    rows = []
    sums = {"float32": 0.0, "mixed": 0.0}
    for trained in cells(options):
        for eps in options.eps:
            exact, mixed = (
                [standing_after_pgd(trained, eps, seed, precision, options) for seed in options.seeds]
                for precision in ("float32", "mixed")
            )
            sums["float32"] += statistics.mean(exact)
            sums["mixed"] += statistics.mean(mixed)
            within = min(exact) - 1 <= statistics.mean(mixed) <= max(exact) + 1
            rows.append(
                [trained.name, f"{eps:g}", str(len(trained.y)), spread(exact), spread(mixed), "yes" if within else "NO"]
            )
            print(*rows[-1], sep="; ", flush=True)
    print()
    head = ["model", "eps", "right", "float32: mean (least - greatest)", "two precisions", "within float32's, or one"]
    print_table(head, rows)
    print(f"\nStanding in all, on average: float32 {sums['float32']:.1f}, two precisions {sums['mixed']:.1f}")
    print(f"PGD-20, {options.norm}, {len(options.seeds)} seeds, {options.images} images; {machine()}")


def standing_after_pgd(
    trained: Trained, eps: float, seed: int, precision: Precision, options: argparse.Namespace
) -> int:
    attack, generator = Pgd(norm=options.norm, eps=eps, steps=20), stream(seed, "benchmark")
    count = 0
    for first in range(0, len(trained.y), 500):
        part = trained.at(slice(first, first + 500))
        found = run_attack(trained.model, attack, part.x, part.y, generator=generator, precision=precision)
        count += int((found.prediction == part.y).sum())
    return count


def spread(counts: list[int]) -> str:
    return f"{statistics.mean(counts):.1f} ({min(counts)} - {max(counts)})"


def percent(count: int, trained: Trained) -> str:
    return f"{100 * count / trained.images:.2f}"


if __name__ == "__main__":
    main()
