"""Where the package keeps its configs."""
from pathlib import Path
from typing import List

INDEX = 'model-index.yml'


def package_folder() -> Path:
    """Where ``configs/``, ``tools/`` and the model index are: ``.mim`` in an
    installed package, else the repository.

    Raises:
        FileNotFoundError: If they are in neither.
    """
    package = Path(__file__).parents[1]
    for folder in (package / '.mim', package.parent):
        if (folder / INDEX).is_file():
            return folder
    raise FileNotFoundError(f'{package} has no {INDEX}: install the package '
                            'anew.')


def package_configs() -> List[Path]:
    """All configs of the package that are no pieces of others."""
    folder = package_folder() / 'configs'
    return sorted(path for path in folder.rglob('*.py')
                  if '_base_' not in path.parts)


def package_config(name: str) -> str:
    """Path of a config of the package.

    Args:
        name: Below ``configs/``, such as ``trm_ml_coco.py``.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = package_folder() / 'configs' / name
    if not path.is_file():
        raise FileNotFoundError(f'trm_ml_mm has no config {name}: see '
                                f'{path.parent}.')
    return str(path)
