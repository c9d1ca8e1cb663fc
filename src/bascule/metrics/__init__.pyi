from .accuracy import Accuracy as Accuracy
from .accuracy_accepted import AccuracyAccepted as AccuracyAccepted
from .accuracy_retuned import AccuracyRetuned as AccuracyRetuned
from .accuracy_twin import AccuracyTwin as AccuracyTwin
from .asr import Asr as Asr
from .asr_after_attack import AsrAfterAttack as AsrAfterAttack
from .asr_away import AsrAway as AsrAway
from .asr_evaded import AsrEvaded as AsrEvaded
from .asr_others import AsrOthers as AsrOthers
from .asr_paper import AsrPaper as AsrPaper
from .asr_retuned import AsrRetuned as AsrRetuned
from .asr_retuned_clean import AsrRetunedClean as AsrRetunedClean
from .asr_retuned_twin import AsrRetunedTwin as AsrRetunedTwin
from .asr_toward import AsrToward as AsrToward
from .asr_twin import AsrTwin as AsrTwin
from .asr_undetected import AsrUndetected as AsrUndetected
from .asr_worst import AsrWorst as AsrWorst
from .certified_accuracy import CertifiedAccuracy as CertifiedAccuracy
from .contract import (
    Estimate as Estimate,
)
from .contract import (
    Judgement as Judgement,
)
from .contract import (
    Measure as Measure,
)
from .contract import (
    Metric as Metric,
)
from .contract import (
    Number as Number,
)
from .contract import (
    NumberOfTwin as NumberOfTwin,
)
from .contract import (
    OfTwin as OfTwin,
)
from .contract import (
    Outcomes as Outcomes,
)
from .contract import (
    Verdict as Verdict,
)
from .der import Der as Der
from .detect_auroc_adversarial import DetectAurocAdversarial as DetectAurocAdversarial
from .detect_auroc_both import DetectAurocBoth as DetectAurocBoth
from .detect_auroc_triggered import DetectAurocTriggered as DetectAurocTriggered
from .detect_false_alarms import DetectFalseAlarms as DetectFalseAlarms
from .drift import Drift as Drift
from .drift_twin import DriftTwin as DriftTwin
from .filter_auroc import FilterAuroc as FilterAuroc
from .filter_average_precision import FilterAveragePrecision as FilterAveragePrecision
from .filter_base_rate import FilterBaseRate as FilterBaseRate
from .filter_f1 import FilterF1 as FilterF1
from .filter_precision import FilterPrecision as FilterPrecision
from .filter_recall import FilterRecall as FilterRecall
from .filter_removed_benign import FilterRemovedBenign as FilterRemovedBenign
from .filter_removed_twin import FilterRemovedTwin as FilterRemovedTwin
from .rir import Rir as Rir
from .robust_accuracy import RobustAccuracy as RobustAccuracy
from .robust_accuracy_detected import RobustAccuracyDetected as RobustAccuracyDetected
from .robust_accuracy_evaded import RobustAccuracyEvaded as RobustAccuracyEvaded
from .scan_anomaly import ScanAnomaly as ScanAnomaly
from .scan_anomaly_twin import ScanAnomalyTwin as ScanAnomalyTwin
from .scan_auroc import ScanAuroc as ScanAuroc
from .scan_false_alarm import ScanFalseAlarm as ScanFalseAlarm
from .scan_found import ScanFound as ScanFound
from .scan_overlap import ScanOverlap as ScanOverlap
from .trigger_attention import TriggerAttention as TriggerAttention
from .trigger_strength import TriggerStrength as TriggerStrength
from .triggered_accuracy import TriggeredAccuracy as TriggeredAccuracy
from .triggered_robust_accuracy import TriggeredRobustAccuracy as TriggeredRobustAccuracy
