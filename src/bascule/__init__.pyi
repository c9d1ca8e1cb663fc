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
from .api.audit import audit as audit
from .api.check import check as check
from .api.evaluate import evaluate as evaluate
from .api.load import load as load
from .api.perturb import perturb as perturb
from .api.run import run as run
from .core.errors import RequestError as RequestError
from .record.evaluation import Evaluation as Evaluation
from .report.audited.audit import Audit as Audit
from .report.check.checked import Checked as Checked
from .report.frames import Frames as Frames
from .report.result import Row as Row
from .report.result import Run as Run

__version__: str
