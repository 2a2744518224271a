"""Copies configs and tools into the wheel; everything else is in
pyproject.toml."""
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithMim(build_py):
    """Put configs and tools into the wheel, where OpenMIM looks for them."""

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib) / 'trm_ml_mm' / '.mim'
        for folder in ('configs', 'tools'):
            shutil.copytree(
                HERE / folder,
                target / folder,
                ignore=shutil.ignore_patterns('__pycache__'),
                dirs_exist_ok=True)


setup(cmdclass={'build_py': BuildWithMim})
