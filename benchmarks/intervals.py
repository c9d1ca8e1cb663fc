"""How often the intervals hold the truth, when seeds and test images are both drawn anew: docs/statistics.md.

An image is a success of a seed when `level + seed effect + image effect + rest` is positive, all three normal: seeds
and images are crossed, as in a study, where all seeds see one test set. Two rows share part of their image effects.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from bascule.measure.interval import Interval, student_t, together, wilson
from bascule.measure.paired import score_interval


@dataclass(frozen=True)
class World:
    """Where results come from."""

    share: float
    """The truth: successes over all seeds and images there could be."""
    seed: float
    """Standard deviation of the seeds' effects; that of the rest is 1."""
    image: float
    """Standard deviation of the images' effects."""

    @property
    def level(self) -> float:
        return float(norm.ppf(self.share)) * float(np.sqrt(self.seed**2 + self.image**2 + 1))


def successes(world: World, seeds: int, n: int, draws: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Whether each of the images is a success of each of the seeds."""
    effects = world.seed * draws.standard_normal((seeds, 1)) + world.image * images
    return world.level + effects + draws.standard_normal((seeds, n)) > 0


Candidates = dict[str, Interval]


def of_one(world: World, seeds: int, n: int, draws: np.random.Generator) -> Candidates:
    """Intervals for the share, by three ways."""
    means = successes(world, seeds, n, draws, draws.standard_normal(n)).mean(axis=1)
    value = float(means.mean())
    over_seeds = student_t(means) if seeds > 1 else wilson(value, n)
    return {
        "pooled": wilson(value, n * seeds),
        "seeds only": (max(0.0, over_seeds[0]), min(1.0, over_seeds[1])),
        "both": together(value, wilson(value, n), list(means), 0.0),
    }


def of_difference(
    first: World, second: World, shared: float, seeds: int, n: int, draws: np.random.Generator
) -> Candidates:
    """Intervals for the difference of two rows; `shared` is the correlation of their image effects."""
    images = draws.standard_normal(n)
    others = shared * images + np.sqrt(1 - shared**2) * draws.standard_normal(n)
    old, new = successes(first, seeds, n, draws, images), successes(second, seeds, n, draws, others)
    means = new.mean(axis=1) - old.mean(axis=1)
    value = float(means.mean())
    gained, lost = float((new & ~old).mean()), float((old & ~new).mean())
    over_images = score_interval(gained, lost, n)
    return {
        "images only": over_images,
        "seeds only": student_t(means) if seeds > 1 else over_images,
        "both": together(value, over_images, list(means), -1.0),
    }


def measured(trial: Callable[[], Candidates], truth: float, rounds: int) -> Iterator[tuple[str, float, float]]:
    """For each way: how often it held the truth, and its median width."""
    found = [trial() for _ in range(rounds)]
    for name in found[0]:
        ends = np.array([candidates[name] for candidates in found])
        held = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
        yield name, float(held.mean()), float(np.median(ends[:, 1] - ends[:, 0]))


SPREADS = {"seeds alike": (0.1, 3.0), "seeds differ": (0.8, 3.0), "images alike": (0.5, 0.0)}
"""Standard deviations of seeds and images. In the recorded studies images weigh about three times the rest."""


def shares(rounds: int, n: int, draws: np.random.Generator) -> None:
    print(f"\nOne number, n = {n}: coverage % (median width in points)\n")
    print("| share | seeds and images | seeds | pooled Wilson | Student's t alone | both |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for share in (0.01, 0.1, 0.5, 0.99):
        for spread, (seed, image) in SPREADS.items():
            world = World(share, seed, image)
            for seeds in (1, 2, 3, 5, 10):
                results = measured(lambda: of_one(world, seeds, n, draws), share, rounds)  # noqa: B023
                cells = [f"{100 * held:.1f} ({100 * width:.1f})" for _, held, width in results]
                print("|", " | ".join([f"{share:g}", spread, str(seeds), *cells]), "|", flush=True)


def differences(rounds: int, n: int, draws: np.random.Generator) -> None:
    print(f"\nA paired difference, n = {n}: coverage % (median width in points)\n")
    print("| shares | seeds and images | seeds | images alone | Student's t alone | both |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for old, new in ((0.01, 0.01), (0.95, 0.97), (0.5, 0.5), (0.1, 0.6)):
        for spread, (seed, image) in SPREADS.items():
            first, second = World(old, seed, image), World(new, seed, image)
            for seeds in (1, 2, 3, 5, 10):
                results = measured(lambda: of_difference(first, second, 0.7, seeds, n, draws), new - old, rounds)  # noqa: B023
                cells = [f"{100 * held:.1f} ({100 * width:.1f})" for _, held, width in results]
                print("|", " | ".join([f"{old:g} to {new:g}", spread, str(seeds), *cells]), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--images", type=int, default=400)
    options = parser.parse_args()
    draws = np.random.default_rng(0)
    shares(options.rounds, options.images, draws)
    differences(options.rounds, options.images, draws)


if __name__ == "__main__":
    main()
