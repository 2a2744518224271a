"""The package's configs by name."""
import fnmatch
from typing import List, Optional

from mmengine.config import Config
from mmengine.fileio import load
from mmpretrain.apis import ModelHub
from torch import nn

from trm_ml_mm.engine import load_config
from trm_ml_mm.utils.package import INDEX, package_config, package_folder

from .model import build_model, load_model


def list_models(pattern: Optional[str] = None) -> List[str]:
    """Names of the package's models, such as those of COCO: ``'*coco*'``."""
    names = [entry['Name'] for entry in _models()]
    return names if pattern is None else fnmatch.filter(names, pattern)


def get_config(name: str) -> Config:
    """The config of a model, or of a file of ``configs/``.

    Args:
        name: A name of :func:`list_models`, or a path below ``configs/``, such
            as ``'trm_ml_coco.py'``.

    Raises:
        ValueError: If there is no such model.
        FileNotFoundError: If there is no such file.
    """
    if name.endswith('.py'):
        return load_config(package_config(name))
    for entry in _models():
        if entry['Name'] == name:
            return load_config(str(package_folder() / entry['Config']))
    raise ValueError(f'There is no model "{name}": list_models() has all '
                     'names.')


def get_model(name: str, checkpoint: Optional[str] = None,
              options: Optional[dict] = None, device: str = 'cpu'
              ) -> nn.Module:
    """A model by name.

    Args:
        name: See :func:`get_config`.
        checkpoint: What it learned; see :func:`~trm_ml_mm.apis.load_model`.
            None: the model as a training starts with it.
        options: See :func:`~trm_ml_mm.engine.load_config`.
        device: Where the model goes.

    Raises:
        ValueError, FileNotFoundError: See :func:`get_config` and
            :func:`~trm_ml_mm.apis.load_model`.
    """
    cfg = load_config(get_config(name), options)
    if checkpoint is not None:
        return load_model(checkpoint, cfg, device=device).model
    return build_model(cfg).to(device)


def _models() -> List[dict]:
    folder = package_folder()
    return [entry for path in load(str(folder / INDEX))['Import']
            for entry in load(str(folder / path))['Models']]


def _register() -> None:
    """Let MMPretrain's ``list_models`` and ``get_model`` know them too."""
    try:
        folder = package_folder()
    except FileNotFoundError:  # a copy of the modules alone
        return
    if not ModelHub.has(list_models()[0].lower()):
        ModelHub.register_model_index(folder / INDEX, config_prefix=folder)


_register()
