from .attribute_metrics import AttributeMetrics
from .auroc import MultiLabelAUROC, class_auroc
from .calibrated_metrics import CalibratedMetrics
from .calibration import (
    Calibration,
    calibrate_logits,
    held_out_predictions,
)
from .functional import (
    average_precision,
    mean_over_classes,
    precision_recall,
    predict,
)
from .known_labels import sampling_problems
from .label_errors import confident_errors, suspicious_labels
from .metrics import MultiLabelAP, MultiLabelF1, PerClass
from .probabilities import (
    ProbabilityFit,
    ProbabilityMap,
    calibration_error,
    fit_probabilities,
)
from .query_strategies import STRATEGIES, rank_questions
from .run_record import ResultRow, RunRecord, read_record, write_record
from .thresholds import (
    Thresholds,
    best_f1_thresholds,
    precision_thresholds,
    recall_thresholds,
)

__all__ = [
    'AttributeMetrics', 'CalibratedMetrics', 'Calibration', 'MultiLabelAP',
    'MultiLabelAUROC', 'MultiLabelF1', 'PerClass', 'ProbabilityFit',
    'ProbabilityMap', 'ResultRow', 'RunRecord', 'STRATEGIES', 'Thresholds',
    'average_precision', 'best_f1_thresholds', 'calibrate_logits',
    'calibration_error', 'class_auroc', 'confident_errors',
    'fit_probabilities', 'held_out_predictions', 'mean_over_classes',
    'precision_recall', 'precision_thresholds', 'predict', 'rank_questions',
    'read_record', 'recall_thresholds', 'sampling_problems',
    'suspicious_labels', 'write_record'
]
