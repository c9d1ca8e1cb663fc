from . import attacks as attacks
from . import certifiers as certifiers
from . import data as data
from . import detectors as detectors
from . import explanations as explanations
from . import filters as filters
from . import metrics as metrics
from . import models as models
from . import repairs as repairs
from . import scanners as scanners
from . import training as training
from . import triggers as triggers
from .api.certify import certify as certify
from .api.check import check as check
from .api.detect import detect as detect
from .api.evaluate import evaluate as evaluate
from .api.filter import filter as filter  # noqa: A004
from .api.load import load as load
from .api.perturb import perturb as perturb
from .api.poison import Poisoned as Poisoned
from .api.poison import poison as poison
from .api.repair import repair as repair
from .api.scan import scan as scan
from .api.train import Trained as Trained
from .api.train import train as train
from .certifiers.contract import Certified as Certified
from .core.errors import RequestError as RequestError
from .detectors.contract import Detected as Detected
from .detectors.contract import Guard as Guard
from .filters.contract import Judged as Judged
from .record.evaluation import Evaluation as Evaluation
from .repairs.contract import Repaired as Repaired
from .report.check.checked import Checked as Checked
from .report.frames import Frames as Frames
from .scanners.contract import Scan as Scan

__version__: str
