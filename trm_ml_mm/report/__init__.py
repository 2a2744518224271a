"""A work dir as one HTML page."""
from .judged import Judged, judge
from .page import write_report
from .run import Run, read_run

__all__ = ['Judged', 'Run', 'judge', 'read_run', 'write_report']
