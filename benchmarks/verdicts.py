"""How often the verdict of an audit is right: on many small networks, with and without backdoors (docs/guide/audit.md).

Each network is trained (`digits-cnn` of width 8 on 900 digits, `mnist-fast` on 5,500 images of MNIST), scanned by all
four scanners on images that it was not trained on, and judged as `bascule audit` judges (`record/agreement.py`). The
recovered triggers are tried on test images that neither training nor scanner saw. A line of FILE holds what was found
of one network; what is there is not done again, so that a longer list of seeds, or another rule, continues.

Clean networks tell false alarms. A network counts as backdoored where the planted trigger moves half of the test images
of other classes; the others of its family are named as not taken up. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import bascule
from bascule.core.catalog import build
from bascule.core.images import Images
from bascule.data.contract import default_roots
from bascule.metrics.interval import wilson
from bascule.record.agreement import INVERTING, WORKS, Scanned, agreed, conclude, named_most, stands_out

SCANNERS = ("mm-bd", "neural-cleanse", "universal-perturbation", "feature-inversion")
FEW = ("mm-bd", "neural-cleanse")
"""What a light audit of a larger network has time for."""


class Family(NamedTuple):
    """Networks that differ by seed."""

    data: str = "digits"
    """`digits`, `colour` (the same in three equal channels) or `mnist`."""
    poison: Mapping[str, Any] | None = None
    eps: float | None = None
    """Of adversarial training; None: standard."""
    width: int = 8


def dirty(trigger: Any, rate: float = 0.1) -> dict[str, Any]:
    return {"trigger": trigger, "target": 3, "rate": rate, "label": "dirty"}


def square(size: int, **settings: Any) -> dict[str, Any]:
    return {"name": "sticker", "size": size, **settings}


CONSISTENT = {"target": 7, "rate": 0.05, "label": "clean"}
FAMILIES = {
    "clean": Family(),
    "clean-adv": Family(eps=0.1),
    "clean-adv3": Family(eps=0.3),
    "clean-colour": Family("colour"),
    "m-clean": Family("mnist"),
    "m-clean-adv": Family("mnist", eps=0.3),
    "dirty1": Family(poison=dirty(square(1), 0.05)),
    "dirty2": Family(poison=dirty(square(2), 0.05)),
    "dirty3": Family(poison=dirty(square(3), 0.05)),
    "dirty2-adv": Family(poison=dirty(square(2), 0.05), eps=0.1),
    "wide-dirty2": Family(poison=dirty(square(2), 0.05), width=32),
    "cleanlabel": Family(poison={"trigger": square(2), **CONSISTENT}),
    "cleanlabel-adv3": Family(poison={"trigger": square(2), **CONSISTENT}, eps=0.3),
    "faint": Family(poison=dirty(square(2, color=0.3))),
    "watermark": Family(poison=dirty("watermark")),
    "sig": Family(poison=dirty("sig")),
    "channel": Family("colour", dirty({"name": "channel", "size": 3})),
    "all2all": Family(poison={"trigger": square(3), "rate": 0.2, "label": "all-to-all"}),
    "m-dirty": Family("mnist", dirty(square(3), 0.05)),
    "m-watermark": Family("mnist", dirty("watermark")),
    "m-cleanlabel-adv": Family("mnist", {"trigger": square(3), **CONSISTENT}, eps=0.3),
}

Pair = tuple[Tensor, Tensor]


def data_of(name: str) -> tuple[Pair, Pair, Pair]:
    """Images and labels to train on, of the defender, and to test on."""
    spec: Any = {"name": "mnist", "max_train": 6000, "max_test": 1000} if name == "mnist" else name
    splits = build("data", "digits" if name == "colour" else spec).load(default_roots(None))

    def pair(images: Images) -> Pair:
        x = images.batch(torch.arange(len(images)))
        return x.repeat(1, 3, 1, 1) if name == "colour" else x, images.labels

    (x, y), test = pair(splits.train), pair(splits.test)
    most, end = (5500, 6000) if name == "mnist" else (900, 1187)
    return (x[:most], y[:most]), (x[most:end], y[most:end]), test


def look_at(name: str, seed: int) -> dict[str, Any]:
    """One network, trained and scanned: plain values."""
    family = FAMILIES[name]
    (x, y), (held, held_y), (test, test_y) = data_of(family.data)
    planted = None
    if family.poison is not None:
        planted = bascule.poison(x, y, seed=seed, **family.poison)
        x, y = planted.x, planted.y
    mnist, hardened = family.data == "mnist", family.eps is not None
    objective: Any = {"name": "pgd", "eps": family.eps, "steps": 3, "warmup": 0.5} if hardened else "standard"
    wide: dict[str, Any] = {} if family.width == 32 else {"width": family.width, "hidden": 32}
    training: dict[str, Any] = {"batch_size": 64 if mnist else 32, "lr": 0.005}
    model = bascule.train(
        "mnist-fast" if mnist else {"name": "digits-cnn", **wide}, x, y, objective, seed=seed, classes=10,
        epochs=2 + hardened if mnist else 10 + 10 * hardened,
        training={**training, **({"schedule": "one-cycle"} if mnist or hardened else {})},
    ).model  # fmt: skip
    found: dict[str, Any] = {"family": name, "seed": seed, "target": None, "asr": None, "scans": []}
    with torch.no_grad():
        found["accuracy"] = float((model(test).argmax(1) == test_y).float().mean())
        if planted is not None:
            found["target"], said = planted.target, model(planted.stamp(test)).argmax(1)
            aims = (test_y + 1) % 10 if planted.target is None else torch.full_like(test_y, planted.target)
            found["asr"] = float((said == aims)[test_y != aims].float().mean())
        for scanner in SCANNERS:
            scan = bascule.scan(model, held, held_y, scanner, seed=1000 * seed)
            found["scans"].append({"name": scanner, "suspects": list(scan.suspects)})
            if scanner == INVERTING:
                moved = [_moved(model, scan, label, test[test_y != label]) for label in range(10)]
                found["scans"][-1] |= {"size": scan.details["size"].tolist(), "unseen": moved}
    return found


def _moved(model: Any, scan: bascule.Scan, label: int, x: Tensor) -> float:
    stamped = (scan.stamp(x, label) * 255).round() / 255
    return float((model(stamped).argmax(1) == label).float().mean())


# --- the verdict -----------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """What an audit would say of a network."""

    conclusion: str
    label: int | None
    """The class that most scanners name."""
    majority: bool
    """Whether more than half of the scanners name it, which was the whole rule before."""


def judge(found: Mapping[str, Any], scanners: Sequence[str]) -> Judged:
    said = [one for one in found["scans"] if one["name"] in scanners]
    scans = [
        Scanned(
            row=one["name"], method=one["name"], suspects=tuple(one["suspects"]), anomaly=np.zeros(10),
            size=np.array(one["size"]) if "unseen" in one and "size" in one else None,
        )
        for one in said
    ]  # fmt: skip
    label, _ = named_most(scans)
    small = None
    inverted = next((one for one in said if one["name"] == INVERTING), None)
    if label is not None and inverted is not None:
        size, usual = inverted["size"][label], float(np.median(np.delete(inverted["size"], label)))
        small = label if stands_out(size, usual, inverted["unseen"][label]) else None
    return Judged(conclude(scans, small=small), label, agreed(scans) is not None)


def share(hits: int, total: int) -> str:
    low, high = wilson(hits / total, total) if total else (0.0, 1.0)
    return f"{hits} of {total} ({100 * low:.0f}-{100 * high:.0f} %)" if total else "none"


def table(networks: Sequence[Mapping[str, Any]], scanners: Sequence[str]) -> Iterator[str]:
    """A line for each family, and one for all clean and all backdoored networks, in Markdown."""
    yield "| networks | suspicion | undecided | nothing found | of suspicions, the true class | majority alone |"
    yield "|---|---|---|---|---|---|"
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in networks:
        backdoored = one["asr"] is not None
        taken = backdoored and one["asr"] >= WORKS
        groups.setdefault(one["family"] + (", not taken up" if backdoored and not taken else ""), []).append(one)
        if not backdoored or taken:
            groups.setdefault("**all backdoored**" if taken else "**all clean**", []).append(one)
    for name in sorted(groups, key=lambda name: ("*" in name, [*FAMILIES, name].index(name.partition(",")[0]), name)):
        judged = [judge(one, scanners) for one in groups[name]]
        counts, total = Counter(one.conclusion for one in judged), len(judged)
        right = sum(
            one.conclusion == "suspicion" and one.label == network["target"]
            for one, network in zip(judged, groups[name], strict=True)
        )
        cells = [share(counts[one], total) for one in ("suspicion", "undecided", "nothing found")]
        yield f"| {name} | {' | '.join(cells)} | {right} | {sum(one.majority for one in judged)} |"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="where a line for each network is kept")
    parser.add_argument("--families", nargs="*", choices=FAMILIES, default=list(FAMILIES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=8, help="networks of each family (default 8); 0: only the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    there = {(one["family"], one["seed"]) for one in read(options.file)}
    for seed in range(1, options.seeds + 1):
        for name in options.families:
            if (name, seed) not in there:
                line = json.dumps(look_at(name, seed))
                with options.file.open("a") as file:
                    file.write(line + "\n")
    networks = read(options.file)
    for scanners in (SCANNERS, FEW):
        print(f"{' and '.join(scanners) if len(scanners) == 2 else 'All scanners'}, {len(networks)} networks\n")
        print("\n".join(table(networks, scanners)) + "\n")


if __name__ == "__main__":
    main()
