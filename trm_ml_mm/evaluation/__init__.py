from .functional import (
    average_precision,
    mean_over_classes,
    precision_recall,
    predict,
)
from .metrics import MultiLabelAP, MultiLabelF1, PerClass
from .run_record import ResultRow, RunRecord, read_record, write_record

__all__ = [
    'MultiLabelAP', 'MultiLabelF1', 'PerClass', 'ResultRow', 'RunRecord',
    'average_precision', 'mean_over_classes', 'precision_recall', 'predict',
    'read_record', 'write_record'
]
