"""The calibration that a checkpoint holds."""
from pathlib import Path
from typing import Optional, Sequence, Union

from trm_ml_mm.evaluation import Calibration

# Where it is in a checkpoint's ``meta``.
KEY = 'calibration'


def read_calibration(meta: dict, path: Union[str, Path],
                     classes: Optional[Sequence[str]] = None
                     ) -> Optional[Calibration]:
    """What ``checkpoint['meta']`` says of thresholds and probabilities.

    Args:
        meta: Of a checkpoint.
        path: The checkpoint, for error messages.
        classes: Names of the model's classes; None: not compared.

    Returns:
        None if the model was not calibrated.

    Raises:
        ValueError: If it is damaged, or of other classes.
    """
    if meta.get(KEY) is None:
        return None
    return Calibration.from_dict(meta[KEY], f'The calibration in {path}',
                                 classes)
