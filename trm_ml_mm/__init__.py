"""TRM-ML: text-region matching for multi-label images with missing labels."""
from importlib.util import find_spec

from .version import __version__

if find_spec('mmcv') is None:
    raise ImportError(
        'trm_ml_mm needs mmcv, and neither mmcv nor mmcv-lite is installed: '
        'run `pip install "trm_ml_mm[lite]"`, or install the full mmcv.')

# After the check of mmcv, without which mmengine fails with another message.
from .utils.mmengine_private import name_package  # noqa: E402
from .utils.multimodal import leave_out_multimodal  # noqa: E402
from .utils.package import package_config  # noqa: E402

leave_out_multimodal()
name_package('trm_ml_mm', package_config)

__all__ = ['__version__']
