"""TRM-ML: text-region matching for multi-label images with missing labels."""
from .version import __version__

try:
    import mmcv  # noqa: F401
except ImportError as error:
    raise ImportError(
        'trm_ml_mm needs mmcv, and neither mmcv nor mmcv-lite is installed: '
        'run `pip install "trm_ml_mm[lite]"`, or install the full mmcv.'
    ) from error

__all__ = ['__version__']
