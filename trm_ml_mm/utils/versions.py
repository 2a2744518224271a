"""Which code and which libraries produced a result."""
import platform
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Dict

from trm_ml_mm.version import __version__

LIBRARIES = ('torch', 'mmengine', 'mmpretrain', 'open_clip', 'numpy')


def code_version() -> str:
    """The commit of this package ("-dirty" with uncommitted changes), or its
    version number if it is not in a git repository."""
    root = Path(__file__).parents[2]
    if not (root / '.git').exists() or shutil.which('git') is None:
        return __version__
    git = subprocess.run(
        ['git', 'describe', '--always', '--dirty', '--exclude=*'],
        cwd=root, capture_output=True, text=True)
    return git.stdout.strip() or __version__


def library_versions() -> Dict[str, str]:
    """Versions of Python, this package and the libraries below it."""
    return {
        'python': platform.python_version(),
        'trm_ml_mm': __version__,
        **{name: import_module(name).__version__ for name in LIBRARIES},
    }
