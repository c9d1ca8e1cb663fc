"""What a full scan by Neural Cleanse costs: against the model's bare passes, and against a plain implementation.

A network is trained on images with a sticker planted in them (dirty label, a tenth of the set), then scanned, in one
run, side by side:

- floor: as many forward and input-gradient passes as the scan made, with the same batches, on stamped-sized noise;
- bascule: `scan/neural-cleanse`, all classes together;
- one by one (`--one-by-one`): the same search, one class after another;
- plain: `_plain_neural_cleanse.py`, the authors' schedule, one class after another;
- trojanzoo (`--trojanzoo EPOCHS`, once and untimed by rounds): TrojanZoo's own search, one class after another.

The run fails when two do not flag the same class, or when a mask's size differs by more than 20 %.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable, Iterator

import _trojanzoo
import torch
import torch.nn.functional as F
from _interleaved import CLOCKS, Result, Said, Timed, add_clock, ratio, rounds_of, run, table
from _plain_neural_cleanse import invert
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.images import Images, Splits
from bascule.core.inference import predict
from bascule.core.restore import untouched
from bascule.core.rng import stream
from bascule.data.contract import default_roots
from bascule.scanners.contract import Scan
from bascule.scanners.neural_cleanse import NeuralCleanse
from bascule.scanners.run import run_scanner, success
from bascule.scanners.verdict import mad_index
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.triggers.placement import Poison
from bascule.triggers.stamping import stamp

TARGET = 3
SETTINGS = {
    "digits-cnn": ("digits", {"width": 8, "hidden": 32}, 2, {"epochs": 15, "batch_size": 32, "lr": 5e-3}),
    "mnist-fast": ("mnist", {}, 3, {"epochs": 2, "batch_size": 128, "lr": 3e-3}),
    "mnist-paper": ({"name": "mnist", "max_train": 10_000}, {}, 3, {"epochs": 3, "batch_size": 128, "lr": 1e-3}),
}
"""Data, settings of the network, side of the sticker, and training for each network."""
FLOOR, OURS, SINGLE, PLAIN = "floor (bare passes)", "bascule", "bascule, one by one", "plain"
MOST = 0.2
"""By which share two masks may differ."""


def backdoored(network: str, device: torch.device, epochs: int | None) -> tuple[nn.Module, Splits, str]:
    """A trained network with a backdoor, its data, and a line about both."""
    data, settings, side, schedule = SETTINGS[network]
    schedule = {**schedule, "epochs": epochs or schedule["epochs"]}
    roots = default_roots(None) if data != "digits" else ()
    splits = Splits(*(part.to(device) for part in catalog.build("data", data).load(roots)))
    poison = Poison(trigger={"name": "sticker", "size": side}, target=TARGET, label="dirty", rate=0.1)  # type: ignore[arg-type]
    planted, _ = poison.plant(splits.train, generator=stream(0, "poison", device=device))
    model = catalog.build("models", {"name": network, **settings}).initialised(splits.train.size, 10, seed=0)
    model = model.to(device, memory_format=torch.channels_last)
    train(model, planted, Training(objective="standard", schedule="one-cycle", **schedule), seed=0)  # type: ignore[arg-type]
    draws = stream(0, "stamp", device=device)
    clean = predict(model, splits.test)
    seen = predict(model, splits.test, change=lambda _, x: stamp(poison.trigger, x, generator=draws))
    labels = splits.test.labels.cpu()
    accuracy = float((clean == labels).float().mean())
    asr = float((seen[labels != TARGET] == TARGET).float().mean())
    return model.eval(), splits, f"{network}: accuracy {accuracy:.4f}, ASR {asr:.4f}"


def batches_of(model: nn.Module, job: Callable[[], object]) -> list[int]:
    """Sizes of the batches that go forward and backward while `job` runs."""
    sizes: list[int] = []

    def on_forward(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: sizes.append(len(gradient)))

    handle = model.register_forward_hook(on_forward)
    try:
        job()
    finally:
        handle.remove()
    return sizes


def bare_passes(model: nn.Module, sizes: list[int], size: tuple[int, ...], device: torch.device) -> None:
    x = torch.rand(max(sizes), *size, device=device)
    y = torch.zeros(max(sizes), dtype=torch.int64, device=device)
    with untouched(model):
        for count in sizes:
            part = x[:count].detach().requires_grad_(True)
            torch.autograd.grad(F.cross_entropy(model(part), y[:count], reduction="sum"), part)


def plain_scan(model: nn.Module, images: Images) -> tuple[Scan, int]:
    """The plain implementation on every class, and the images it sent through the model."""
    x = images.batch(torch.arange(len(images), device=images.device))
    with untouched(model):
        found = [
            invert(model, x, label, generator=torch.Generator().manual_seed(label))
            for label in range(len(images.classes))
        ]
    sizes = torch.tensor([one.norm for one in found], device=images.device)
    masks, patterns = (torch.stack([getattr(one, name) for one in found]) for name in ("mask", "pattern"))
    scan = Scan(anomaly=mad_index(sizes), threshold=2.0, pattern=patterns, mask=masks, details={"size": sizes})
    return scan, 32 * sum(one.steps for one in found)


def beside_trojanzoo(model: nn.Module, images: Images, ours: Scan, *, epochs: int, clock: str) -> Said:
    """TrojanZoo's search on every class, beside ours.

    Raises:
        SystemExit: Another class is flagged, or a mask differs too much.
    """
    x = images.batch(torch.arange(len(images), device=images.device))
    now, found = CLOCKS[clock], []
    began = now()
    torch.manual_seed(0)
    with untouched(model):
        for label in range(len(images.classes)):
            found.append(_trojanzoo.invert(model, x, images.labels, label, epochs=epochs))
    seconds = now() - began
    masks, patterns = (torch.stack([getattr(one, name) for one in found]) for name in ("mask", "pattern"))
    sizes = masks.flatten(1).sum(1)
    theirs = Scan(anomaly=mad_index(sizes), threshold=2.0, pattern=patterns, mask=masks)
    moved, shares = success(model, theirs, images), ours.details["size"] / sizes
    if theirs.suspects[:1] != ours.suspects[:1] or ((shares - 1).abs() > MOST).any():
        raise SystemExit(f"TrojanZoo: another class flagged, or a mask that differs by more than {MOST:.0%}")
    rows = [
        [f"{label}", f"{size:.2f}", f"{at:.3f}", f"{one.smallest:.2f}", f"{own:.2f}", f"{share:.2f}", f"{one.epochs}"]
        for label, (size, at, one, own, share) in enumerate(
            zip(sizes.tolist(), moved.tolist(), found, ours.details["size"].tolist(), shares.tolist(), strict=True)
        )
    ]
    head = ["class", "TrojanZoo's mask", "its success", "smallest at 0.99", "bascule's mask", "ratio", "epochs"]
    return Said(
        f"TrojanZoo, at most {epochs} epochs: {seconds:.1f} s; suspects {theirs.suspects}, index "
        f"{float(theirs.anomaly.max()):.2f}, mean success {float(moved.mean()):.4f}\n\n{table(head, rows)}"
    )


def memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB on the device at most"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB resident at most"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=SETTINGS, default="mnist-fast", help="those for mnist need $BASCULE_DATA")
    parser.add_argument("--images", type=int, default=1000, help="the defender's images (default 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (default 3)")
    parser.add_argument("--epochs", type=int, help="of the training, instead of the network's own")
    add_clock(parser)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--one-by-one", action="store_true", help="also time one class after another")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain implementation out")
    parser.add_argument(
        "--trojanzoo",
        type=int,
        metavar="EPOCHS",
        help="also run TrojanZoo's search (its default is 10; 1000 converges)",
    )
    return parser


def measure(options: argparse.Namespace) -> Iterator[Result]:
    if options.trojanzoo and not _trojanzoo.installed():
        raise SystemExit("TrojanZoo is not installed: pip install --no-deps trojanzoo==2.0.3")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)

    model, splits, about = backdoored(options.network, device, options.epochs)
    # The defender's images: test images, which no training has seen.
    images = splits.test.at(torch.arange(min(options.images, len(splits.test)), device=device))
    scanner = NeuralCleanse()
    results: dict[str, Scan] = {}
    passes: dict[str, int] = {}

    def synchronised(job: Callable[[], object]) -> Callable[[], None]:
        def call() -> None:
            job()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return call

    def ours() -> None:
        results[OURS] = run_scanner(model, scanner, images, generator=stream(0, "scan", device=device))

    def one_by_one() -> None:
        for label in range(10):
            run_scanner(model, NeuralCleanse(target=label), images, generator=stream(0, "scan", device=device))

    def plain() -> None:
        results[PLAIN], passes[PLAIN] = plain_scan(model, images)

    sizes = batches_of(model, ours)
    used = memory(device)
    passes[OURS] = passes[FLOOR] = sum(sizes)
    jobs: dict[str, Callable[[], object]] = {
        FLOOR: lambda: bare_passes(model, sizes, images.size, device),
        OURS: ours,
    }
    if options.one_by_one:
        passes[SINGLE] = sum(batches_of(model, one_by_one))
        jobs[SINGLE] = one_by_one
    if not options.no_plain:
        jobs[PLAIN] = plain
    jobs = {name: synchronised(job) for name, job in jobs.items()}
    jobs[FLOOR]()  # what the first calls set up; the scan has run already
    seconds = rounds_of(jobs, rounds=options.rounds, clock=options.clock, untimed=0)

    job = f"Neural Cleanse, {about}; {len(images)} clean images, {device}"
    for name, times in seconds.items():
        found = {"images forward and backward": f"{passes[name]}"}
        if (scan := results.get(name)) is not None:
            found["suspects"] = f"{scan.suspects}, index {float(scan.anomaly.max()):.2f}"
            found["mean success"] = f"{float(success(model, scan, images).mean()):.4f}"
        yield Timed(job=job, who=name, seconds=times, base=seconds[FLOOR], found=found)
    yield Said(f"{used} during the scan")
    if PLAIN in results:
        shares = results[OURS].details["size"] / results[PLAIN].details["size"]
        if results[OURS].suspects[:1] != results[PLAIN].suspects[:1] or ((shares - 1).abs() > MOST).any():
            raise SystemExit(f"not the same job: another class flagged, or a mask that differs by more than {MOST:.0%}")
        yield Said(
            f"plain / bascule: {ratio(seconds[PLAIN], seconds[OURS])} times the time; mask sizes, bascule / plain: "
            f"{' '.join(f'{share:.2f}' for share in shares.tolist())}"
        )
    if options.trojanzoo:
        yield beside_trojanzoo(model, images, results[OURS], epochs=options.trojanzoo, clock=options.clock)


if __name__ == "__main__":
    run(parser(), measure)
