"""What a study file may say: the settings of a row, and the keys beside the rows."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from pydantic import BeforeValidator, Field

from bascule.attacks.contract import Evasion
from bascule.attacks.two_precisions import Precision
from bascule.certifiers.contract import Certifier
from bascule.core.ball import Eps
from bascule.core.catalog import Of, component
from bascule.data.contract import Source
from bascule.detectors.contract import Detector
from bascule.evaluation.retuning import Retuning
from bascule.explanations.contract import HeatMap, Projection, Spectrum
from bascule.filters.contract import Filter
from bascule.metrics.contract import Metric
from bascule.models.contract import Architecture
from bascule.repairs.contract import Repair
from bascule.scanners.contract import Scanner
from bascule.training.settings import Training
from bascule.triggers.given import GivenPoison
from bascule.triggers.placement import Poison
from bascule.triggers.several import SeveralPoisons

KEYS = ("title", "about", "base", "rows", "vary", "seeds", "twin", "measure", "scales", "published")
SCALED = ("base", "rows", "vary", "seeds", "twin")
"""Keys that a scale may change."""
METRICS = ("accuracy", "robust-accuracy", "asr", "asr-paper", "asr-twin", "triggered-accuracy")
SCALE_NAME = r"\w[\w.+ -]*"
"""What a scale may be called: a run folder is called after it."""
MAX_SEEDS = 1000
MAX_ROWS = 1000
"""Most rows of a study's table: its rows times what varies."""
MAX_MODELS = 10_000
"""Most models of a study, without twins."""


@component
class Probe:
    """Looks at a model along its training, on a few fixed images: what it gets right, withstands and has taken up.

    It moves no draw of the training and so no weight. A model that is trained already is not trained again for it.
    """

    later: ClassVar[tuple[str, ...]] = ("per_sample",)

    images: Annotated[int, Ge(1)] = 256
    """How many images of each sort are looked at: of the test set, of the poisoned and of the clean training images;
    all where there are fewer."""
    every: Annotated[int, Ge(1)] = 1
    """Epochs from one look to the next; the end of the last epoch is looked at in any case."""
    per_sample: bool = False
    """Keep at each look the cross-entropy of every training image with the label that it is trained with, two bytes
    and its id in the cell's record. Nobody in the training sees them."""


def _nothing(value: Any) -> Any:
    """`train: none`, as text: in YAML 1.2 this word is no null."""
    return None if value == "none" else value


@component
class Setup:
    """Everything that makes up a row of a study, but the seed."""

    data: Annotated[Source, Of("data")]
    """Where the images come from."""
    poison: Poison | GivenPoison | SeveralPoisons | None = None
    """Planted here, several at once: `{name: several, ...}`, or by others: `{name: given, ...}`."""
    filter: Annotated[Filter | None, Of("filter")] = None
    """A data defence: the recipe is trained once, the filter judges the training set by that model, and what it leaves
    is trained on from the start."""
    model: Annotated[Architecture, Of("models")]
    """The network: one of ours, of torchvision or timm, or a factory of your own (`nets.py:small`)."""
    train: Annotated[Training | None, BeforeValidator(_nothing)]
    """How the model is trained; `none` for one that `model` brings with its weights, which is measured as it is."""
    repair: Annotated[Repair | None, Of("repair")] = None
    """A model defence after training, on held-out images."""
    defender: Annotated[int, Ge(1)] | None = None
    """How many of the images held out (`data.held_out`) repairs, scanners and detectors are given; by default all."""
    probe: Probe | None = None
    """Looks at the model along its training; by default none."""
    attack: Annotated[tuple[Evasion, ...], Of("attack", many=True)] = ()
    """Evasion attacks, in order; each meets only the images that withstood the ones before it."""
    attack_precision: Precision = "float32"
    """Of the attacks' searches. `mixed` takes gradients in bfloat16 and asks whoever seems fooled again in float32, in
    attacks for which that is good enough; the others stay in float32. Success, signs and bounds always are."""
    curve: tuple[Eps, ...] = ()
    """Further radii for the security curve: robust accuracy under the same attacks in smaller and larger balls."""
    certify: Annotated[tuple[Certifier, ...], Of("certify", many=True)] = ()
    """Certified bounds, for certified accuracy."""
    inspect: Annotated[Filter | None, Of("filter")] = None
    """A data defence that only judges the training set by the trained model; nothing is removed."""
    scan: Annotated[Scanner | None, Of("scan")] = None
    """A model scanner, on held-out images."""
    detect: Annotated[Detector | None, Of("detect")] = None
    """A test-time detector, prepared on held-out images: what it says of benign, triggered and adversarial inputs."""
    explain: Annotated[tuple[HeatMap | Spectrum | Projection, ...], Of("explain", many=True)] = ()
    """Explanations: of test images with and without the trigger, or of the target class's training images."""
    retune: Retuning | None = None
    """Trains a copy of the model further on a few images, clean and poisoned: does a backdoor sleep in it?"""


EVALUATIONS = (
    *("probe", "attack", "attack_precision", "curve", "certify"),
    *("inspect", "scan", "detect", "explain", "retune"),
)
"""Keys of a setup that ask something of the model and have no part in making it."""


@component
class Frame:
    """The keys of a study beside its rows."""

    title: str = ""
    """What stands above the table; by default the name of the study."""
    about: str = ""
    """What the study asks, and what to think of while reading its numbers."""
    seeds: Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(0)], ...] = 1
    """How many models of each row, with the seeds 0, 1, ...; or a list of seeds."""
    twin: bool = True
    """Train for each poisoned model its control as well: the same recipe and seed without poison."""
    measure: Annotated[tuple[Metric, ...], Of("measure", many=True)]
    """Metrics, in the order of the table's columns."""


@component
class Published:
    """What a publication reports for one row, to stand beside what is measured."""

    row: str
    """Which row, by its name."""
    vary: dict[str, Any] = Field(default_factory=dict)
    """What varies, where the study varies something."""
    metrics: dict[str, float]
    """True values, by metric name: where a printed value is known to be wrong, the corrected one."""
    printed: dict[str, float] = Field(default_factory=dict)
    """Values as printed, where they are known to be wrong."""
    note: str = ""
    """Where the values stand, and why a printed one is wrong."""
