from .functional import (
    average_precision,
    mean_over_classes,
    precision_recall,
    predict,
)
from .metrics import MultiLabelAP, MultiLabelF1, PerClass

__all__ = [
    'MultiLabelAP', 'MultiLabelF1', 'PerClass', 'average_precision',
    'mean_over_classes', 'precision_recall', 'predict'
]
