"""Time and memory of activation clustering and spectral signatures, beside ART's, on the same features.

The features are real: `--images` images of MNIST, a twentieth of them with a white square and the label 7, at the last
hidden layer (`--width` units, after ReLU) of a network `mnist-fast` that was trained on them for an epoch. They are
rounded to 256 levels and stored as the pixels of images for a model that does nothing but hand them to its linear
layer, so that only the defences are timed and all see the same numbers. MNIST is looked for in $BASCULE_DATA.

Each defence runs in a process of its own, one after the other in turns; its memory is the peak of that process above
what it held with the stored images (one byte a feature) before it began. ART's functions get what they ask for: one
float32 matrix of a class after the other, cut from a matrix of all features that stays in memory as its `detect_poison`
keeps it.

Clusterings run with two seeds: how far two seeds of the same code agree is the yardstick for how far two codes can.
Beside that, k-means is begun from the same pairs of images on both codes' components, which leaves nothing to chance.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from _apart import Cost, cost_apart, cost_here
from _interleaved import Result, Said, Timed, add_clock, ratio, run, table
from sklearn.cluster import KMeans
from torch import nn

from bascule.core.catalog import build
from bascule.core.features import features
from bascule.core.images import Images
from bascule.core.projection import components
from bascule.core.rng import stream
from bascule.data.contract import default_roots
from bascule.filters.activation_clustering import ActivationClustering
from bascule.filters.contract import Filter
from bascule.filters.run import run_filter
from bascule.filters.spectral_signatures import SpectralSignatures
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.triggers.placement import Poison

CLASSES = 10
DIMENSIONS = 10
TARGET = 7
STARTS = 20
"""Pairs of images from which k-means is begun on both codes' components."""
Answer = np.ndarray
"""Score of each image, or for clusterings 1 in the smaller cluster of its class, else 0; ART's components behind it."""


def write_features(count: int, width: int, folder: Path) -> str:
    """Train the network, write its features (uint8, N x width) and the images' labels, and say what was made."""
    source = build("data", {"name": "mnist", "max_train": count})
    images = source.load(default_roots(None))[0]
    poison = Poison(trigger=build("poison", {"name": "sticker", "size": 3}), target=TARGET, rate=0.05, label="dirty")
    images, truth = poison.plant(images, generator=stream(0, "poison"))
    net = build("models", {"name": "mnist-fast", "hidden": width}).initialised(images.size, CLASSES, seed=0)
    train(net, images, Training(objective=build("train", "standard"), epochs=1, lr=1e-3, batch_size=128), seed=0)
    rows = features(net, images)
    top = max(float(part.max()) for part in rows.chunks())
    found = np.lib.format.open_memmap(folder / "features.npy", "w+", dtype=np.uint8, shape=(len(images), width))
    start = 0
    for part in rows.chunks():
        found[start : start + len(part)] = (255 / top * part).round().to(torch.uint8).numpy()
        start += len(part)
    found.flush()
    np.save(folder / "labels.npy", images.labels.numpy())
    silent = float((found[:1000] == 0).mean())
    return f"{len(truth.ids)} images poisoned, {100 * silent:.0f} % of the features 0"


def read_images(folder: Path) -> Images:
    pixels = torch.from_numpy(np.load(folder / "features.npy"))
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    pixels = pixels.reshape(len(pixels), 1, 1, -1)
    return Images(pixels=pixels, labels=labels, ids=torch.arange(len(labels)), classes=tuple(map(str, range(CLASSES))))


# --- contestants -----------------------------------------------------------------------------------------------------


def bascule(method: Filter) -> Callable[[Images, int], Answer]:
    def call(images: Images, seed: int) -> Answer:
        net = nn.Sequential(nn.Flatten(), nn.Linear(images.size[2], CLASSES))
        found = run_filter(net, method, images, generator=stream(seed, "benchmark"))
        scores = isinstance(method, SpectralSignatures)
        return found.score.numpy() if scores else found.removed.numpy().astype(np.float32)

    return call


def art_features(images: Images) -> list[np.ndarray]:
    whole = images.batch(torch.arange(len(images))).flatten(1).numpy()
    return [whole[images.labels.numpy() == label] for label in range(CLASSES)]


def art_spectral(images: Images, seed: int) -> Answer:
    from art.defences.detector.poison.spectral_signature_defense import SpectralSignatureDefense

    found = np.zeros(len(images), dtype=np.float32)
    for label, rows in enumerate(art_features(images)):
        scores = SpectralSignatureDefense.spectral_signature_scores(rows)
        found[images.labels.numpy() == label] = scores.squeeze(1)
    return found


def art_clustering(reduce: str) -> Callable[[Images, int], Answer]:
    def call(images: Images, seed: int) -> Answer:
        from art.defences.detector.poison.activation_defence import cluster_activations

        np.random.seed(seed)  # noqa: NPY002 - the only generator it can be given
        clusters, points = cluster_activations(art_features(images), nb_dims=DIMENSIONS, reduce=reduce)
        found = np.zeros((len(images), 1 + DIMENSIONS), dtype=np.float32)
        for label, own in enumerate(clusters):
            index = images.labels.numpy() == label
            found[index, 0], found[index, 1:] = own == np.bincount(own).argmin(), points[label]
        return found

    return call


SPECTRAL = "spectral signatures"
JOBS: dict[str, dict[str, Callable[[Images, int], Answer]]] = {
    SPECTRAL: {"bascule": bascule(SpectralSignatures(centred=False)), "ART": art_spectral},
    "activation clustering, PCA": {
        "bascule": bascule(ActivationClustering(reduce="pca", dimensions=DIMENSIONS, rule="smaller")),
        "ART": art_clustering("PCA"),
    },
    "activation clustering, ICA": {
        "bascule": bascule(ActivationClustering(reduce="ica", dimensions=DIMENSIONS, rule="smaller")),
        "ART": art_clustering("FastICA"),
    },
}


# --- one contestant in its own process -------------------------------------------------------------------------------


def run_here(options: argparse.Namespace) -> None:
    """Run the job that is named, write its answer, print what it cost."""
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    job, who = options.one
    if who == "ART":  # importing is not timed
        import art.defences.detector.poison.activation_defence
        import art.defences.detector.poison.spectral_signature_defense  # noqa: F401
    images = read_images(Path(options.folder))
    cost_here(lambda: np.save(options.answer, JOBS[job][who](images, options.seed)), options.clock)


def run_apart(job: str, who: str, seed: int, options: argparse.Namespace, folder: Path) -> Cost:
    command = ["--one", job, who, "--seed", str(seed), "--clock", options.clock]
    command += ["--folder", str(folder), "--answer", str(folder / f"{who} {seed}.npy")]
    return cost_apart(__file__, command, options.threads)


# --- the tables ------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--images", type=int, default=50_000)
    made.add_argument("--width", type=int, default=4096, help="features per image (default 4096)")
    made.add_argument("--rounds", type=int, default=1)
    add_clock(made)
    made.add_argument("--jobs", nargs="*", choices=list(JOBS), default=list(JOBS))
    for hidden in ("--folder", "--answer"):
        made.add_argument(hidden, help=argparse.SUPPRESS)
    made.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    made.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return made


def measure(options: argparse.Namespace) -> Iterator[Result]:
    torch.set_num_threads(options.threads)
    likeness: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = write_features(options.images, options.width, folder)
        size = f"{options.images} x {options.width} float32 = {options.images * options.width * 4 / 2**20:.0f} MiB"
        for job in options.jobs:
            seeds = [0] if job == SPECTRAL else [0, 1]
            cost: dict[str, list[Cost]] = {who: [] for who in JOBS[job]}
            for _ in range(options.rounds):
                for seed in seeds:
                    for who in list(cost):
                        try:
                            cost[who].append(run_apart(job, who, seed, options, folder))
                        except ImportError as error:
                            del cost[who]
                            yield Said(f"{who} is skipped for {job}: {error}")
            for who, own in cost.items():
                yield _timed(f"{job}, {size} of features, {made}", who, own, cost["bascule"])
            likeness += likeness_of(job, list(cost), seeds, folder)
    if likeness:
        yield Said(table(["agreement", "between", f"class {TARGET}", "other classes, median", "least"], likeness))


def _timed(job: str, who: str, mine: Sequence[Cost], ours: Sequence[Cost]) -> Timed:
    seconds, base = ([one.seconds for one in part] for part in (mine, ours))
    memory, beside = ([max(one.mib, 0.1) for one in part] for part in (mine, ours))
    found = {"peak MiB": f"{statistics.median(memory):.0f}", "times bascule": ratio(memory, beside)}
    return Timed(job=job, who=who, seconds=seconds, base=base, found=found)


def likeness_of(job: str, present: Sequence[str], seeds: Sequence[int], folder: Path) -> Iterator[list[str]]:
    """How alike the answers are, each with each."""
    labels = np.load(folder / "labels.npy")
    found = {(who, seed): np.load(folder / f"{who} {seed}.npy") for seed in seeds for who in present}
    answers = {f"{who}, seed {seed}": both.reshape(len(labels), -1)[:, 0] for (who, seed), both in found.items()}
    for (one, ours), (other, theirs) in itertools.combinations(answers.items(), 2):
        yield [job, f"{one} - {other}", *agreement(ours, theirs, labels)]
    if job != SPECTRAL and "ART" in present:
        same = from_same_starts(job.rpartition(" ")[2].lower(), folder, found["ART", 0][:, 1:])  # type: ignore[arg-type]
        yield [job, f"same start: bascule - ART, least of {STARTS}", *same]


def from_same_starts(reduce: Literal["pca", "ica"], folder: Path, theirs: np.ndarray) -> list[str]:
    """Share of images in the same cluster after k-means from the same images, on our components and on ART's."""
    images = read_images(folder)
    draw, least = np.random.default_rng(0), []
    rows = features(nn.Sequential(nn.Flatten(), nn.Linear(images.size[2], CLASSES)), images)
    for _, index, part in rows.by_class():
        _, points = components(part.in_memory(), DIMENSIONS, method=reduce, generator=stream(0, "components"))
        found = []
        for _ in range(STARTS):
            pair = draw.choice(len(index), 2, replace=False)
            both = [points.double().numpy(), theirs[index].astype(np.float64)]
            found.append(share_alike(*(KMeans(2, init=one[pair], n_init=1).fit(one).labels_ for one in both)))
        least.append(min(found))
    return summary(least)


def share_alike(one: np.ndarray, other: np.ndarray) -> float:
    """Of two clusterings, up to which cluster is which."""
    same = float((one == other).mean())
    return max(same, 1 - same)


def agreement(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray) -> list[str]:
    """In the poisoned class, and in the others: correlation of the scores, or share of images in the same cluster."""
    clusters = set(np.unique(ours)) <= {0.0, 1.0}
    pairs = [(ours[labels == label], theirs[labels == label]) for label in range(CLASSES)]
    return summary([share_alike(*pair) if clusters else float(np.corrcoef(*pair)[0, 1]) for pair in pairs])


def summary(found: list[float]) -> list[str]:
    """Of one number a class."""
    target, others = found[TARGET], found[:TARGET] + found[TARGET + 1 :]
    return [f"{value:.4f}" for value in (target, statistics.median(others), min(others))]


if __name__ == "__main__":
    given = parser().parse_args()
    if given.one:
        run_here(given)
    else:
        run(parser(), measure)
