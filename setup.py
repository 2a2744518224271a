import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '([^']+)'",
                    (HERE / 'trm_ml_mm/version.py').read_text()).group(1)


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


LITE = ['mmcv-lite>=2.1']
setup(
    name='trm_ml_mm',
    version=VERSION,
    description='TRM-ML: text-region matching for multi-label image '
    'recognition with missing labels, for MMPretrain',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['trm_ml_mm*']),
    package_data={'trm_ml_mm': ['assets/*.pth']},
    cmdclass={'build_py': BuildWithMim},
    # Neither mmcv nor mmcv-lite: both own the import name `mmcv`, and whoever
    # has the full one keeps it. The extra brings the light one.
    install_requires=[
        'torch>=2.1',
        'torchvision',
        'mmengine>=0.10.4',
        'mmpretrain>=1.2',
        'open_clip_torch>=3.0',
        'numpy',
        'rich',
    ],
    extras_require={
        'lite': LITE,
        'tests': LITE + [
            'pytest>=7',
            'hypothesis',
            'scikit-learn',
            'torchmetrics',
        ],
    },
)
