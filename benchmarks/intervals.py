"""How often the intervals hold the truth, when seeds and test images are both drawn anew: docs/statistics.md.

An image is a success of a seed when `level + seed effect + image effect + rest` is positive, all three normal: seeds
and images are crossed, as in a study, where all seeds see one test set. Two rows share part of their image effects.

With `--skewed`, seeds that differ more: images are alike, and the logits of the seeds' shares are normal, or their
normal deviates are, which is the longer tail.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from bascule.metrics.interval import Interval, over_seeds, student_t, together, wilson
from bascule.metrics.paired import paired_over_seeds, score_interval
from bascule.record.flags import NEAR_END


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
    plain = student_t(means) if seeds > 1 else wilson(value, n)
    return {
        "pooled": wilson(value, n * seeds),
        "seeds only": (max(0.0, plain[0]), min(1.0, plain[1])),
        "both": of_shares(means, n),
    }


def of_shares(shares: Sequence[float] | np.ndarray, n: int) -> Interval:
    """As `summarise` puts it together."""
    value = float(np.mean(shares))
    return together(value, [wilson(value, n), *([over_seeds(shares, n)] if len(shares) > 1 else [])], least=0.0)


def by_student(shares: Sequence[float] | np.ndarray, n: int) -> Interval:
    """The same with Student's t over the shares as they are, without logits."""
    value = float(np.mean(shares))
    return together(value, [wilson(value, n), student_t(shares)], least=0.0)


def of_difference(
    first: World, second: World, shared: float, seeds: int, n: int, draws: np.random.Generator
) -> Candidates:
    """Intervals for the difference of two rows; `shared` is the correlation of their image effects."""
    images = draws.standard_normal(n)
    others = shared * images + np.sqrt(1 - shared**2) * draws.standard_normal(n)
    old, new = successes(first, seeds, n, draws, images), successes(second, seeds, n, draws, others)
    before, after = old.mean(axis=1), new.mean(axis=1)
    value = float((after - before).mean())
    gained, lost = float((new & ~old).mean()), float((old & ~new).mean())
    over_images = score_interval(gained, lost, n)
    parts = [over_images, *([paired_over_seeds(before, after, n)] if seeds > 1 else [])]
    return {
        "images only": over_images,
        "seeds only": student_t(after - before) if seeds > 1 else over_images,
        "both": together(value, parts, least=-1.0),
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


# --- seeds that differ more ------------------------------------------------------------------------------------------

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(81)
_SEEDS, _SPREADS = (2, 3, 5, 10), (0.0, 0.2, 0.5, 1.0, 1.5)


def logit_normal(share: float, spread: float, effects: np.ndarray) -> np.ndarray:
    """Shares of seeds whose logits are normal, with this mean."""

    def mean(level: float) -> float:
        return float(_WEIGHTS @ expit(level + spread * _NODES) / _WEIGHTS.sum()) - share

    return expit(brentq(mean, -40, 40) + spread * effects)


def deviate_normal(share: float, spread: float, effects: np.ndarray) -> np.ndarray:
    """Shares of seeds whose normal deviates are normal, with this mean."""
    return norm.cdf(World(share, spread, 0.0).level + spread * effects)


Link = Callable[[float, float, np.ndarray], np.ndarray]


def skewed_shares(rounds: int, link: Link, sizes: Sequence[int], draws: np.random.Generator) -> None:
    """Coverage by Student's t as it is, by the interval of the table, and of that or the flag `unseen seeds`."""
    print(
        f"\nOne number, seeds' shares {link.__name__}: Student's t, the interval, interval or flag; width in points\n"
    )
    print("| images | seeds | share |", " | ".join(f"spread {spread:g}" for spread in _SPREADS), "|")
    print("| ---: | ---: | ---: |", " | ".join("---" for _ in _SPREADS), "|")
    for n in sizes:
        for seeds in _SEEDS:
            for share in (0.002, 0.01, 0.02, 0.1, 0.5, 0.98):
                cells = [_skewed_cell(link, share, spread, seeds, n, rounds, draws) for spread in _SPREADS]
                print("|", " | ".join([f"{n:,}", str(seeds), f"{100 * share:g} %", *cells]), "|", flush=True)


def _skewed_cell(
    link: Link, share: float, spread: float, seeds: int, n: int, rounds: int, draws: np.random.Generator
) -> str:
    shares = draws.binomial(n, link(share, spread, draws.standard_normal((rounds, seeds)))) / n
    plain, ends = (np.array([way(row, n) for row in shares]) for way in (by_student, of_shares))
    near_end = (shares.max(axis=1) < NEAR_END) | (shares.min(axis=1) > 1 - NEAR_END)
    before, held = ((part[:, 0] <= share) & (share <= part[:, 1]) for part in (plain, ends))
    numbers = (f"{100 * float(part.mean()):.1f}" for part in (before, held, held | near_end))
    return f"{', '.join(numbers)} ({100 * float(np.median(ends[:, 1] - ends[:, 0])):.1f})"


_PAIRS = (
    ((0.02, 0.0), (0.02, 0.0)), ((0.02, 0.5), (0.02, 0.5)), ((0.02, 0.0), (0.02, 1.5)), ((0.02, 1.5), (0.02, 1.5)),
    ((0.01, 1.0), (0.1, 1.0)), ((0.1, 0.2), (0.1, 1.5)), ((0.5, 1.0), (0.02, 1.0)), ((0.98, 1.5), (0.9, 1.5)),
    ((0.5, 0.5), (0.5, 0.5)),
)  # fmt: skip
"""Share and spread of two rows."""


def skewed_differences(rounds: int, sizes: Sequence[int], draws: np.random.Generator) -> None:
    """The same for a paired difference; seeds' effects correlated by 0 and 0.8 between the rows."""
    print("\nA paired difference, seeds' logits normal: Student's t, the interval (width), how often it leaves out 0\n")
    print("| images | seeds | from, to (spread) | correlation 0 | correlation 0.8 |")
    print("| ---: | ---: | --- | --- | --- |")
    for n in sizes:
        for seeds in _SEEDS:
            for old, new in _PAIRS:
                cells = [_paired_cell(old, new, shared, seeds, n, rounds, draws) for shared in (0.0, 0.8)]
                name = ", ".join(f"{100 * share:g} % ({spread:g})" for share, spread in (old, new))
                print("|", " | ".join([f"{n:,}", str(seeds), name, *cells]), "|", flush=True)


def _paired_cell(
    old: tuple[float, float],
    new: tuple[float, float],
    shared: float,
    seeds: int,
    n: int,
    rounds: int,
    draws: np.random.Generator,
) -> str:
    first, rest = draws.standard_normal((2, rounds, seeds))
    befores = logit_normal(*old, first)
    afters = logit_normal(*new, shared * first + np.sqrt(1 - shared**2) * rest)
    truth, ends, plain = new[0] - old[0], [], []
    for before_, after_ in zip(befores, afters, strict=True):
        before = draws.binomial(n, before_)
        kept, gained = draws.binomial(before, after_), draws.binomial(n - before, after_)
        olds, news = before / n, (kept + gained) / n
        images = score_interval(float(gained.mean() / n), float((before - kept).mean() / n), n)
        value = float((news - olds).mean())
        for way, found in ((paired_over_seeds(olds, news, n), ends), (student_t(news - olds), plain)):
            found.append(together(value, [images, way], least=-1.0))
    inside = [100 * float(np.mean([low <= truth <= high for low, high in found])) for found in (plain, ends)]
    clear = 100 * float(np.mean([low > 0 or high < 0 for low, high in ends]))
    width = 100 * float(np.median([high - low for low, high in ends]))
    return f"{inside[0]:.1f}, {inside[1]:.1f} ({width:.1f}), {clear:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--skewed", action="store_true", help="seeds that differ more, at 360, 1,000 and 10,000 images")
    options = parser.parse_args()
    draws = np.random.default_rng(0)
    if options.skewed:
        for link in (logit_normal, deviate_normal):
            skewed_shares(options.rounds, link, (360, 1_000, 10_000), draws)
        skewed_differences(options.rounds, (360, 10_000), draws)
        return
    shares(options.rounds, options.images, draws)
    differences(options.rounds, options.images, draws)


if __name__ == "__main__":
    main()
