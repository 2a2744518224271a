"""Files that predict without this package."""
from .check import Report
from .run import FORMATS, evaluate, export_model, open_file

__all__ = ['FORMATS', 'Report', 'evaluate', 'export_model', 'open_file']
