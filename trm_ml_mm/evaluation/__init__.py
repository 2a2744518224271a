from .functional import (
                         average_precision,
                         mean_over_classes,
                         precision_recall,
                         predict,
)
from .metrics import MultiLabelAP, MultiLabelF1

__all__ = [
    'MultiLabelAP', 'MultiLabelF1', 'average_precision', 'mean_over_classes',
    'precision_recall', 'predict'
]
