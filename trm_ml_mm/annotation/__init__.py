"""Ask people for labels in an annotation tool, and read their answers.

A label has three values everywhere: present, absent, unknown. What nobody was
asked, or nobody answered, stays unknown.
"""
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple

from .answers import Answer, Answered, apply_answers
from .cvat import (
    cvat_labels,
    cvat_name,
    export_cvat,
    from_cvat,
    read_cvat,
    to_cvat,
)
from .label_studio import (
    export_label_studio,
    from_label_studio,
    label_studio_config,
    read_label_studio,
    to_label_studio,
)
from .names import safe_name
from .questions import questions


class Format(NamedTuple):
    """The files of one annotation tool.

    ``export(table, path, asked=None, probabilities=None, image_url=...)``
    writes the questions and returns the paths of its files.
    ``read_answers(path, table)`` returns what :func:`apply_answers` takes.
    """

    export: Callable[..., List[Path]]
    read_answers: Callable[..., List[Answer]]


FORMATS: Dict[str, Format] = dict(
    labelstudio=Format(export_label_studio, read_label_studio),
    cvat=Format(export_cvat, read_cvat))

__all__ = [
    'Answer', 'Answered', 'FORMATS', 'Format', 'apply_answers', 'cvat_labels',
    'cvat_name', 'export_cvat', 'export_label_studio', 'from_cvat',
    'from_label_studio', 'label_studio_config', 'questions', 'read_cvat',
    'read_label_studio', 'safe_name', 'to_cvat', 'to_label_studio'
]
