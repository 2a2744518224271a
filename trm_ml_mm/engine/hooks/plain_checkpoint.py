"""Checkpoints of tensors and plain types, that belong to one setting."""
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper

from trm_ml_mm.registry import HOOKS

# Of each logged figure; more than any smoothing window looks back, and a long
# run's checkpoints stay as small as its first.
KEPT_VALUES = 1000


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Make checkpoints that PyTorch's safe loader reads, and refuse wrong
    ones.

    MMEngine's checkpoints hold objects (logged histories, a scheduler's bound
    method), which ``torch.load(..., weights_only=True)``, the default since
    PyTorch 2.6, does not read. They are taken apart on saving and put
    together again on loading.

    A run does not start with a data set of other classes than the model's,
    does not blend labels (Mixup, CutMix), and does not resume on another mask
    of known labels.

    Raises:
        ValueError: In those three cases.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner) -> None:
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        if getattr(model.data_preprocessor, 'batch_augments', None):
            raise ValueError(
                'Batch augmentations such as Mixup and CutMix blend labels, '
                'and a blend with an unknown label means nothing: take '
                'train_cfg.augments out of the model.')
        names = model_class_names(model)
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if names is None or loop is None or isinstance(loop, dict):
                continue
            classes = loop.dataloader.dataset.metainfo.get('classes')
            if classes is None or tuple(classes) == names:
                continue
            if len(classes) != len(names):
                raise ValueError(
                    f'The data set has {len(classes)} classes and the model '
                    f'{len(names)}: give the model the data set\'s classes.')
            c = next(i for i, n in enumerate(names) if n != classes[i])
            raise ValueError(
                f'Class {c} is "{classes[c]}" in the data set and '
                f'"{names[c]}" in the model: give the model the data set\'s '
                'classes, in its order.')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        hub = checkpoint['message_hub']
        hub['log_scalars'] = {
            key: [torch.as_tensor(part[-KEPT_VALUES:]) for part in buffer.data]
            for key, buffer in hub['log_scalars'].items()
        }
        hub['runtime_info'] = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in hub['runtime_info'].items()
        }
        schedulers = checkpoint.get('param_schedulers', [])
        for state in schedulers if isinstance(schedulers, list) else sum(
                schedulers.values(), []):
            # OneCycle keeps its bound method; a new scheduler has its own.
            state.pop('anneal_func', None)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for key, value in scalars.items():
            if not isinstance(value, HistoryBuffer):
                log, count = value
                scalars[key] = HistoryBuffer(log.cpu().numpy(),
                                             count.cpu().numpy())
        if runner._resume:
            saved = checkpoint['meta'].get('dataset_meta') or {}
            own = getattr(runner.train_dataloader.dataset, 'metainfo', {})
            everything = dict(known='all', seed=None, hash='none')
            saved = saved.get('known_labels') or everything
            own = own.get('known_labels') or everything
            if saved['hash'] != own['hash']:
                raise ValueError(
                    'The checkpoint was trained on another mask of known '
                    f'labels (known={saved["known"]}, seed={saved["seed"]}, '
                    f'hash {saved["hash"]}) than this run (known='
                    f'{own["known"]}, seed={own["seed"]}, hash {own["hash"]}):'
                    ' resume with its setting, or train anew in another work '
                    'dir.')


def model_class_names(model):
    """Class names of a classifier's text side, or None where it has none."""
    for part in ('backbone', 'head'):
        part = getattr(model, part, None)
        names = getattr(part, 'class_names', None)
        if names is None:
            names = getattr(getattr(part, 'text', None), 'class_names', None)
        if names is not None:
            return tuple(names)
    return None
