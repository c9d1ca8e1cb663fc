"""Bascule: measures both ends of an image classifier's security, adversarial examples and backdoors, in one run."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn
    from torch.utils.data import DataLoader, Dataset

    from bascule.attacks.contract import Evasion
    from bascule.certifiers.contract import Certifier
    from bascule.record.evaluation import Evaluation
    from bascule.report.check.checked import Checked
    from bascule.report.frames import Frames
    from bascule.triggers.contract import Trigger

__version__ = version("bascule")
__all__ = ["__version__", "check", "evaluate", "load", "perturb"]


def perturb(
    model: nn.Module,
    x: Tensor | Dataset[Any] | DataLoader[Any],
    y: Tensor | None,
    attack: str | Mapping[str, Any] | Evasion,
    *,
    seed: int = 0,
    attack_precision: Literal["float32", "mixed"] = "float32",
    **settings: Any,
) -> Tensor:
    """Adversarial copies of images: `bascule.perturb(model, x, y, "pgd", eps=8 / 255, steps=40)`.

    Images that the model gets wrong are not attacked and come back as they are. The others are found in the attack's
    threat model, mostly a ball, and in [0, 1], whatever the attack; where it failed, as its last try left them. The
    model is attacked in eval mode, batch by batch on its own device, and found as it was: modes, parameters, gradients,
    hooks, random numbers.

    Args:
        model: From [0, 1] images to logits; normalisation is its first layer.
        x: N x C x H x W, floats in [0, 1] or uint8 (0 to 255); or a data set or loader, as `evaluate` takes it.
        y: Labels, whole numbers, shape (N,); None with a data set.
        attack: A name (see `bascule ls attack`) with its settings as keywords; or a mapping as in a study file, or an
            attack itself.
        seed: Of everything that is drawn.
        attack_precision: `mixed` lets `pgd`, `fgsm`, `apgd` and the like take their gradients in bfloat16, which is
            faster on processors and GPUs that have it; who is fooled is decided in float32. For models in float32.
        settings: Of the attack: `bascule show attack/NAME`.

    Returns:
        Floats of the type of the model's parameters (of 32 bits for one of 16), N x C x H x W, on the device of `x`; of
        a data set in its order, on the CPU.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, a data set that gives something else, or a model
            that does not answer with logits.
    """
    from bascule.evaluation import in_memory

    return in_memory.perturb(model, x, y, attack, seed=seed, attack_precision=attack_precision, **settings)


def evaluate(
    model: nn.Module,
    x: Tensor | Dataset[Any] | DataLoader[Any],
    y: Tensor | None = None,
    *,
    attack: str | Mapping[str, Any] | Evasion | Sequence[str | Mapping[str, Any] | Evasion] = (),
    certify: str | Mapping[str, Any] | Certifier | Sequence[str | Mapping[str, Any] | Certifier] = (),
    trigger: str | Mapping[str, Any] | Trigger | None = None,
    target: int | None = None,
    measure: str | Sequence[str] = (),
    attack_precision: Literal["float32", "mixed"] = "float32",
    seed: int = 0,
) -> Evaluation:
    """Both ends of a model, with intervals: the same numbers as `bascule evaluate WEIGHTS` on these images.

    `found["robust_accuracy"].value`, `.low`, `.high` and `.n`; `accuracy`, `certified_accuracy`, `asr` and
    `triggered_accuracy` likewise, with None for what was not asked for. `found.flags` says what may not be trusted,
    `found.attacks` what each attack did, `found.outcomes` what was answered to each image.

    Args:
        model: From [0, 1] images to logits; normalisation is its first layer. Found as it was afterwards.
        x: N x C x H x W, floats in [0, 1] or uint8 (0 to 255). Or a torch data set or loader (or what is like one) that
            gives (image, label) or {"image": ..., "label": ...}, one by one or in batches, where an image is a picture
            of Pillow, or a tensor in that range. It is gone through once, and all of it is held in memory.
        y: Labels, whole numbers, shape (N,); absent with a data set.
        attack: One attack or several, cheap ones first, each `{"name": "pgd", "eps": 8 / 255}` or an attack itself.
            Robust accuracy is the worst case over all.
        certify: Certified bounds, written alike.
        trigger: A backdoor's trigger, for ASR.
        target: The class that the trigger aims at.
        measure: Further metrics by name, for example `triggered-robust-accuracy`.
        attack_precision: Of the attacks' searches, as in `perturb`.
        seed: Of everything that is drawn.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, a data set that gives something else, or a model
            that does not answer with logits.
    """
    from bascule.evaluation import in_memory

    return in_memory.evaluate(
        model,
        x,
        y,
        attack=attack,
        certify=certify,
        trigger=trigger,
        target=target,
        measure=measure,
        attack_precision=attack_precision,
        seed=seed,
    )


def check(
    what: str | Path | Evaluation,
    *conditions: str,
    row: str | Sequence[str] = (),
    runs: str | Path = "runs",
) -> Checked:
    """Whether conditions on the numbers of a run hold: `assert bascule.check("digits", "asr.high < 5 %")`.

    A condition compares a metric by its name in tables, or an end of its 95 % interval, with a number: `asr < 0.05`,
    `asr.high < 5 %`, `robust_accuracy.low >= 0.4`. What cannot be told does not hold: a row that is not finished, a
    metric that was not measured, an interval that is not there.

    Args:
        what: A run folder, or the name of a study that was run; or what `evaluate` found of one model.
        conditions: At least one.
        row: Names of rows; by default the conditions must hold on all.
        runs: Folder that holds the runs.

    Returns:
        What is true when all conditions hold, and as text says what was found, with the interval, line by line.

    Raises:
        RequestError: There is no such run, row or metric, or a condition cannot be read.
    """
    from bascule.report.check import checked

    return checked.check(what, conditions, row=row, runs=runs)


def load(run: str | Path, *, runs: str | Path = "runs") -> Frames:
    """The rows, models and per-image outcomes of a run as pandas frames; see `bascule.report.frames`.

    Args:
        run: A run folder, or the name of a study that was run.
        runs: Folder that holds the runs.

    Raises:
        RequestError: There is no such run, its record is damaged, or pandas is missing.
    """
    from bascule.report import frames

    return frames.load(run, runs=runs)
