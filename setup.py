"""Copies configs and tools into the wheel; everything else is in
pyproject.toml."""
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithMim(build_py):
    """Put configs, tools and the model index where OpenMIM and MMEngine look
    for them; links to them in an editable installation."""

    def run(self):
        super().run()
        editable = getattr(self, 'editable_mode', False)
        target = (HERE if editable else Path(self.build_lib)
                  ) / 'trm_ml_mm' / '.mim'
        if editable:
            target.mkdir(exist_ok=True)
        for name in ('configs', 'tools', 'model-index.yml'):
            if editable:
                if not (target / name).is_symlink():
                    (target / name).symlink_to(Path('../..', name))
            elif (HERE / name).is_dir():
                shutil.copytree(
                    HERE / name, target / name, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy(HERE / name, target / name)


setup(cmdclass={'build_py': BuildWithMim})
