"""Every private name of MMEngine that this package uses.

A new version of MMEngine may rename them: this file is the one to check.
(Three overridden methods keep their names where they are overridden:
``MultiLabelClsHead._get_predictions`` of MMPretrain and
``Module._load_from_state_dict`` and ``_apply`` of PyTorch.)
"""
from functools import lru_cache
from typing import Callable, Optional, Sequence, Tuple

from mmengine.config import Config, DictAction
from mmengine.config import config as config_module
from mmengine.config.utils import MODULE2PACKAGE


class OptionAction(DictAction):
    """MMEngine's parser of ``--cfg-options``, but words keep their spaces:
    ``context='a photo of a'``. (MMEngine's removes them without a word.)"""

    @staticmethod
    def _parse_iterable(val: str):
        val = val.strip().strip('\'"')
        ends = val[:1] + val[-1:]
        is_list = ends in ('()', '[]')
        inner = val[1:-1] if is_list else val
        parts, depth = [''], 0
        for character in inner:
            depth += (character in '([') - (character in ')]')
            if character == ',' and depth == 0:
                parts.append('')
            else:
                parts[-1] += character
        if not is_list and len(parts) == 1:  # a comma inside it is none of ours
            return DictAction._parse_int_float_bool(val)
        values = [OptionAction._parse_iterable(part) for part in parts
                  if part.strip()]
        return tuple(values) if ends == '()' else values


def format_configs_once() -> None:
    """Let MMEngine remember a formatted config.

    It stores the text in every checkpoint, and formats it anew each time,
    which takes .1 to .3 s: as long as several steps on cached features."""
    format_code = config_module.FormatCode
    if hasattr(format_code, 'remembers'):
        return

    @lru_cache(maxsize=8)
    def formatted(text, style, options):
        return format_code(text, style_config=dict(style), **dict(options))

    def remembered(text, style_config, **options):
        return formatted(text, tuple(style_config.items()),
                         tuple(options.items()))

    remembered.remembers = True
    config_module.FormatCode = remembered


def name_package(name: str, find: Callable[[str], str]) -> None:
    """Let configs inherit from those of a package: ``_base_ =
    'name::config.py'``.

    MMEngine knows its own packages alone. It would also put the package's name
    before every type in such a config.

    Args:
        name: Of the package.
        find: Path of a config, from what stands behind ``::``.
    """
    MODULE2PACKAGE[name] = name
    others = Config._get_cfg_path

    def path_and_scope(path: str, filename: str):
        package, _, config = path.partition('::')
        return (find(config), None) if package == name else others(
            path, filename)

    Config._get_cfg_path = staticmethod(path_and_scope)


def built_loop(runner, split: str):
    """The runner's loop of 'train', 'val' or 'test'; None if it has none or
    has not built it yet."""
    loop = getattr(runner, f'_{split}_loop')
    return None if isinstance(loop, dict) else loop


def is_resuming(runner) -> bool:
    """Whether the runner resumes a run, rather than only loading weights."""
    return runner._resume


def start_file(runner) -> Optional[str]:
    """The checkpoint that the runner loads or resumes from; None: none, or
    the latest one."""
    return runner._load_from


def forget_namesake(runner) -> None:
    """Give a run that is being built a logger, messages and pictures of its
    own. MMEngine tells runs apart by their config and second, so one that
    starts in the second of another would go on with what that has noted, such
    as its best epoch."""
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.visualization import Visualizer  # --help needs no torch
    for kind in (MMLogger, MessageHub, Visualizer,
                 *Visualizer.__subclasses__()):
        kind._instance_dict.pop(runner._experiment_name, None)


def set_start_file(runner, path: str) -> None:
    runner._load_from = path


def set_loaded(runner) -> None:
    """Tell the runner that its checkpoint is loaded."""
    runner._has_loaded = True


def own_metainfo(dataset) -> dict:
    """The data set's meta information itself, not a copy."""
    return dataset._metainfo


def wrapped_index(dataset, index: int) -> Optional[Tuple[int, int]]:
    """Where sample ``index`` of a wrapper lives in what it wraps: an index,
    or (number of the data set, index) for ``ConcatDataset``. The index itself
    if the wrapper does not reorder samples. (A ``KFoldDataset`` holds only the
    samples of its fold.)"""
    if hasattr(dataset, 'wrapped_index'):  # our own
        return dataset.wrapped_index(index)
    from mmpretrain.datasets import KFoldDataset  # heavy, and rarely needed
    if hasattr(dataset, '_get_ori_dataset_idx') and (
            not isinstance(dataset, KFoldDataset)):
        return dataset._get_ori_dataset_idx(index)
    return index


def describe(model, cfg: Config, classes: Optional[Sequence[str]]) -> None:
    """Leave on a model what MMPretrain's ``get_model`` does, and its
    inferencers read."""
    model._config, model._metainfo = cfg, None
    model._dataset_meta = dict(classes=classes)


def skip_init(module) -> None:
    """Tell ``BaseModule.init_weights`` that a module needs no initialisation,
    so that it does not overwrite pretrained weights."""
    module._is_init = True
